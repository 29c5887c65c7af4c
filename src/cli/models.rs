//! Which model, how it is asked, and what it costs: the part of the settings that the model room takes.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::config::{File, number, usage, variable_of};
use crate::model::{
    CallLimits, FIRST_BYTE_S, ModelOptions, ModelSettings, PRICES_BYTES_MAX, Prices, Provider, ProviderSettings,
    READ_S, Waits,
};

/// Key of a table that stands for all that it does not name.
const ALL: &str = "*";
/// Largest limit on calls, and longest silence in seconds, that can be meant.
const LIMIT_MAX: u64 = 100_000;

/// What a model is chosen by.
pub(super) fn settings(file: &File) -> ModelSettings {
    let provider = |prefix: &str| ProviderSettings {
        base_url: variable_of(&format!("{prefix}_BASE_URL")),
        api_key: variable_of(&format!("{prefix}_API_KEY")),
        model: variable_of(&format!("{prefix}_MODEL")),
    };
    ModelSettings {
        model: variable_of("OARLOCK_MODEL").or_else(|| file.model.clone()),
        base_url: variable_of("OARLOCK_BASE_URL").or_else(|| file.base_url.clone()),
        openai: provider("OPENAI"),
        anthropic: provider("ANTHROPIC"),
        gemini: provider("GEMINI"),
        ollama: provider("OLLAMA"),
        ..ModelSettings::default()
    }
}

/// How models are asked.
pub(super) fn options(file: &File) -> anyhow::Result<ModelOptions> {
    let waits = Waits {
        first_byte: seconds("OARLOCK_FIRST_BYTE_S", "first_byte_s", file.first_byte_s, FIRST_BYTE_S)?,
        read: seconds("OARLOCK_READ_S", "read_s", file.read_s, READ_S)?,
    };
    let is_provider = |key: &str| key == ALL || Provider::from_id(key).is_some();
    if let Some(key) = file.provider_calls_max.keys().find(|key| !is_provider(key)) {
        return Err(usage(format!(
            "configuration table [provider_calls_max]: {key:?} is no provider; nor is it \"*\""
        )));
    }
    if let Some(key) = file.model_calls_max.keys().find(|key| *key != ALL && !key.contains('/')) {
        let why = "is no \"provider/model\"; nor is it \"*\"";
        return Err(usage(format!("configuration table [model_calls_max]: {key:?} {why}")));
    }
    let provider = limits("OARLOCK_PROVIDER_CALLS_MAX", "provider_calls_max", &file.provider_calls_max)?;
    let model = limits("OARLOCK_MODEL_CALLS_MAX", "model_calls_max", &file.model_calls_max)?;
    let calls = Arc::new(CallLimits::new(provider, model));
    Ok(ModelOptions { waits, calls, prices: Arc::new(prices(file)?) })
}

/// The file of prices, over the built-in ones.
fn prices(file: &File) -> anyhow::Result<Prices> {
    let Some(path) = variable_of("OARLOCK_PRICES").map(PathBuf::from).or_else(|| file.prices.clone()) else {
        return Prices::built_in().map_err(usage);
    };
    let refused = |why: String| usage(format!("prices {}: {why}", path.display()));
    let text = prices_text(&path).map_err(|error| refused(error.to_string()))?;
    Prices::with_own(&text).map_err(|error| refused(error.to_string()))
}

/// The text of a regular file, as far as it is one that can be meant: the file's name may be a stranger's.
fn prices_text(path: &Path) -> io::Result<String> {
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    // Before it is opened: a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return refused("it is no regular file".to_owned());
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(PRICES_BYTES_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > PRICES_BYTES_MAX {
        true => refused(format!("it has more bytes than prices_bytes_max {PRICES_BYTES_MAX}")),
        false => Ok(text),
    }
}

fn seconds(variable: &str, name: &str, file: Option<u64>, default: u64) -> anyhow::Result<Duration> {
    match number(variable, file)?.unwrap_or(default) {
        seconds @ 1..=LIMIT_MAX => Ok(Duration::from_secs(seconds)),
        seconds => Err(usage(format!("{name} is {seconds}; it must be 1 to {LIMIT_MAX}"))),
    }
}

/// A table of limits; the variable is one for all.
fn limits(variable: &str, name: &str, file: &HashMap<String, usize>) -> anyhow::Result<HashMap<String, usize>> {
    let table = match number(variable, None::<usize>)? {
        Some(max) => HashMap::from([(ALL.to_owned(), max)]),
        None => file.clone(),
    };
    match table.iter().find(|(_, max)| !(1..=LIMIT_MAX).contains(&(**max as u64))) {
        Some((key, max)) => Err(usage(format!("{name} of {key:?} is {max}; it must be 1 to {LIMIT_MAX}"))),
        None => Ok(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_and_limits_are_taken_from_a_file_and_nonsense_is_refused() {
        let read = |text: &str| options(&toml::from_str(text).unwrap());
        let all = "first_byte_s = 7\nread_s = 8\n[provider_calls_max]\nollama = 1\n\"*\" = 4\n\
                   [model_calls_max]\n\"openai/gpt-test\" = 2\n";
        let taken = read(all).unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(taken.waits, Waits { first_byte: seconds(7), read: seconds(8) });
        assert_eq!(taken.calls.provider, HashMap::from([("ollama".to_owned(), 1), ("*".to_owned(), 4)]));
        assert_eq!(taken.calls.model, HashMap::from([("openai/gpt-test".to_owned(), 2)]));
        assert_eq!(read("").unwrap().waits, Waits::default());
        for (text, says) in [
            ("first_byte_s = 0", "first_byte_s is 0; it must be 1 to 100000"),
            ("read_s = 100001", "read_s is 100001; it must be 1 to 100000"),
            ("[provider_calls_max]\nopenai = 0", "provider_calls_max of \"openai\" is 0; it must be 1 to 100000"),
            ("[provider_calls_max]\nmistral = 1", "\"mistral\" is no provider"),
            ("[model_calls_max]\n\"openai/x\" = 100001", "model_calls_max of \"openai/x\" is 100001"),
            ("[model_calls_max]\ngpt-test = 1", "\"gpt-test\" is no \"provider/model\""),
        ] {
            let told = read(text).unwrap_err().to_string();
            assert!(told.contains(says), "{text}: {told}");
        }
    }

    #[test]
    fn a_file_of_prices_is_read_and_none_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let own = "[models]\n\"openai/mine\" = { in = 1, out = 1 }\n";
        std::fs::write(folder.path().join("mine.toml"), own).unwrap();
        std::fs::write(folder.path().join("long.toml"), "#".repeat(PRICES_BYTES_MAX as usize + 1)).unwrap();
        let named = |name: &str| {
            let file = File { prices: Some(folder.path().join(name)), ..File::default() };
            prices(&file).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(named("mine.toml"), Ok(()));
        assert!(named("none.toml").unwrap_err().contains("none.toml"));
        assert!(named("long.toml").unwrap_err().contains("prices_bytes_max"));
        assert!(named(".").unwrap_err().contains("no regular file"));
        #[cfg(unix)]
        assert!(named("/dev/zero").unwrap_err().contains("no regular file"));
    }
}
