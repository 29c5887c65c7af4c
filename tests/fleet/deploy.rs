//! The files that deploy a fleet: `nats.conf` starts a real server, `compose.yaml` fits the Compose specification.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oarlock::bus::StreamSettings;
use serde_json::Value;

use crate::harness::{connect, have, sources, until};

/// The module that carries the Compose specification's JSON Schema.
const COMPOSE_SCHEMA: &str = "github.com/compose-spec/compose-go/v2@v2.16.2";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_conf_is_one_that_a_fleet_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    let binary = sources().find().await.unwrap();
    let mut server = Command::new(binary)
        .arg("-c")
        .arg(file("nats.conf"))
        .args(["-p", "-1", "-m", "-1", "--ports_file_dir"])
        .arg(folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ports = || -> Option<Value> {
        let mut files = std::fs::read_dir(folder.path()).ok()?.filter_map(Result::ok);
        let ports = files.find(|file| file.path().extension().is_some_and(|end| end == "ports"))?;
        serde_json::from_str(&std::fs::read_to_string(ports.path()).ok()?).ok()
    };
    until("nats-server to listen", async || ports().is_some()).await;
    let ports = ports().unwrap();
    let bus = connect(ports["nats"][0].as_str().unwrap()).await;
    bus.declare(&StreamSettings::default()).await.unwrap();
    let monitor = ports["monitoring"][0].as_str().unwrap();
    assert!(monitor.contains("127.0.0.1"), "{monitor}");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let seen: Value = client.get(format!("{monitor}/jsz")).send().await.unwrap().json().await.unwrap();
    assert_eq!(seen["config"]["sync_always"], true, "{seen}");
    assert_eq!(seen["streams"], 10, "{seen}");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn compose_fits_its_schema_and_starts_what_there_is() {
    let text = std::fs::read_to_string(file("compose.yaml")).unwrap();
    let compose: Value = serde_saphyr::from_str(&text).unwrap();
    for role in oarlock::wire::Role::ALL {
        let service = &compose["services"][role.name()];
        let words: Vec<&str> =
            service["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(words, ["worker", role.name()]);
        let parsed = oarlock::cli::command().try_get_matches_from(std::iter::once("oarlock").chain(words));
        assert!(parsed.is_ok(), "{role}");
        assert!(
            service.get("container_name").is_none() && service.get("ports").is_none(),
            "{role} could not be scaled"
        );
    }
    let keys = text.lines().filter(|line| line.trim_start().contains("_API_KEY:"));
    keys.for_each(|line| assert!(line.trim_end().ends_with(':'), "a key is given a value: {line}"));
    let Some(schema) = compose_schema() else { return };
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut plain = compose;
    // Extension fields are merged into the services by now.
    plain.as_object_mut().unwrap().retain(|name, _| !name.starts_with("x-"));
    let faults: Vec<String> =
        validator.iter_errors(&plain).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The schema out of the module cache, fetched through Go's own client.
fn compose_schema() -> Option<Value> {
    let there = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
    if !have("go", there, "install Go 1.24 or later: the Compose schema comes with a Go module") {
        return None;
    }
    let output = Command::new("go").args(["mod", "download", "-json", COMPOSE_SCHEMA]).output().unwrap();
    let module: Value = serde_json::from_slice(&output.stdout).unwrap();
    let folder = module["Dir"].as_str().unwrap_or_else(|| panic!("{module}"));
    let text = std::fs::read_to_string(Path::new(folder).join("schema/compose-spec.json")).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn the_image_is_built_from_what_is_there() {
    let text = std::fs::read_to_string(file("Dockerfile")).unwrap();
    for line in text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let sources = words.split_last().map(|(_, sources)| sources).unwrap_or_default();
        sources.iter().for_each(|source| assert!(file(source).exists(), "{line}"));
    }
    let copied: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("COPY ")?.split(' ').next()).collect();
    let manifest: toml::Table = std::fs::read_to_string(file("Cargo.toml")).unwrap().parse().unwrap();
    for kind in ["bin", "test", "bench"] {
        for target in manifest[kind].as_array().unwrap() {
            let default = format!("{kind}es/{}.rs", target["name"].as_str().unwrap());
            let path = target.get("path").map_or(default, |path| path.as_str().unwrap().to_owned());
            let folder = path.split('/').next().unwrap();
            assert!(copied.contains(&folder), "the image is built without {path}");
        }
    }
    assert!(text.contains("USER 10001"), "the image must not run as root");
    let ignored = std::fs::read_to_string(file(".dockerignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "target"));
}
