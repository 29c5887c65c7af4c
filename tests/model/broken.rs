//! A corpus of what models say when they are asked for JSON (`broken.json`), each with its schema and what is to be read
//! from it; and the two promises that hold for any text: no panic, and nothing that the schema refuses.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use async_trait::async_trait;
use oarlock::model::{
    ChatModel, ChatReply, ChatRequest, Finish, JsonError, JsonReply, ModelError, OutputSchema, Way, complete_json,
};
use oarlock::wire::Usage;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::request;

#[derive(Deserialize)]
struct Corpus {
    schemas: HashMap<String, Value>,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    name: String,
    schema: String,
    text: String,
    expect: Value,
    repaired: Option<bool>,
}

fn corpus() -> &'static Corpus {
    static CORPUS: LazyLock<Corpus> =
        LazyLock::new(|| serde_json::from_str(include_str!("broken.json")).expect("a corpus"));
    &CORPUS
}

/// Says each text once, then nothing.
struct Saying(Mutex<Vec<String>>);

#[async_trait]
impl ChatModel for Saying {
    async fn complete(&self, _: &ChatRequest) -> Result<ChatReply, ModelError> {
        let text = self.0.lock().unwrap().pop().unwrap_or_default();
        let usage = Usage { calls: 1, input: 10, output: 2, ..Usage::default() };
        Ok(ChatReply { text, finish: Finish::Stop, usage, model: "saying".into(), way: Way::default() })
    }

    fn name(&self) -> &str {
        "saying"
    }
}

/// What is made of a model that says `first`, and `second` when it is asked again.
fn made_of(first: &str, second: &str, schema: &Value) -> Result<JsonReply<Value>, JsonError> {
    let model = Saying(Mutex::new(vec![second.to_owned(), first.to_owned()]));
    let schema = Some(OutputSchema { name: "answer".into(), schema: schema.clone() });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(complete_json(&model, ChatRequest { schema, ..request("answer me") }))
}

#[test]
fn the_corpus_is_read_as_it_is_meant() {
    let corpus = corpus();
    assert!(corpus.answers.len() >= 60);
    let mut wrong = Vec::new();
    for answer in &corpus.answers {
        let schema = &corpus.schemas[&answer.schema];
        let found = made_of(&answer.text, "", schema);
        let as_meant = match &found {
            Ok(reply) => {
                assert!(jsonschema::is_valid(schema, &reply.value), "{}: {}", answer.name, reply.value);
                assert_eq!(reply.usage.repairs, u32::from(reply.repaired), "{}", answer.name);
                reply.value == answer.expect && Some(reply.repaired) == answer.repaired
            }
            Err(error) => {
                assert!(matches!(error, JsonError::Invalid { .. }), "{}: {error}", answer.name);
                assert_eq!((error.usage().calls, error.usage().repairs), (2, 1), "{}", answer.name);
                answer.expect == "refused"
            }
        };
        if !as_meant {
            let found = found.map(|reply| (reply.value, reply.repaired));
            wrong.push(format!("{}: {:?}\n    {found:?}", answer.name, answer.text));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), corpus.answers.len(), wrong.join("\n"));
}

#[test]
fn what_is_refused_is_asked_for_once_more_and_that_is_a_repair() {
    let corpus = corpus();
    for answer in corpus.answers.iter().filter(|answer| answer.expect == "refused") {
        let (schema, good) = match answer.schema.as_str() {
            "verdict" => ("verdict", json!({"verdict": "changes", "score": 2})),
            "plan" => ("plan", json!({"tasks": [{"id": "t1", "role": "qa"}]})),
            "files" => ("files", json!({"files": [{"path": "a", "content": ""}], "summary": "x"})),
            other => (other, json!([1])),
        };
        let reply = made_of(&answer.text, &good.to_string(), &corpus.schemas[schema]).unwrap();
        assert_eq!((reply.value, reply.repaired), (good.clone(), true), "{}", answer.name);
        assert_eq!((reply.usage.calls, reply.usage.repairs), (2, 1), "{}", answer.name);
        // Mended as well: a comma too many the second time.
        let mended = good.to_string().replace('}', ",}").replace(']', ",]").replace(",,", ",").replace("[,", "[");
        if let Ok(reply) = made_of(&answer.text, &mended, &corpus.schemas[schema]) {
            assert_eq!((reply.value, reply.usage.repairs), (good, 2), "{}: {mended}", answer.name);
        }
    }
}

/// Answers of the corpus, cut, doubled and stirred.
fn stirred() -> impl Strategy<Value = (usize, String)> {
    let texts: Vec<&str> = corpus().answers.iter().map(|answer| answer.text.as_str()).collect();
    let count = texts.len();
    let bits = "[\\[\\]{}\"':,\\\\/`<>0-9a-z \n]{0,6}";
    (0..count, 0..count, any::<prop::sample::Index>(), any::<prop::sample::Index>(), bits, any::<bool>()).prop_map(
        move |(one, two, cut, from, bits, joined)| {
            let (first, second) = (texts[one], texts[two]);
            let at = |text: &str, index: prop::sample::Index| text.floor_char_boundary(index.index(text.len() + 1));
            let head = &first[..at(first, cut)];
            let tail = if joined { &second[at(second, from)..] } else { &first[at(first, from)..] };
            (one, format!("{head}{bits}{tail}"))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic_or_pass_what_the_schema_refuses((one, text) in stirred()) {
        let corpus = corpus();
        let schema = &corpus.schemas[&corpus.answers[one].schema];
        match made_of(&text, "", schema) {
            Ok(reply) => prop_assert!(jsonschema::is_valid(schema, &reply.value), "{text}: {}", reply.value),
            Err(error) => prop_assert!(matches!(error, JsonError::Invalid { .. }), "{text}: {error}"),
        }
    }

    #[test]
    fn good_json_in_any_wrapping_is_read_unchanged(
        score in 0u8..=10, note in "[^\\p{C}]{0,30}", before in "[a-z ,.!\n]{0,30}", after in "[a-z ,.!\n]{0,30}", fenced in any::<bool>(),
    ) {
        let corpus = corpus();
        let value = json!({"verdict": "approve", "score": score, "note": note});
        let text = match fenced {
            true => format!("{before}\n```json\n{value}\n```\n{after}"),
            false => format!("{before}{value}{after}"),
        };
        let reply = made_of(&text, "", &corpus.schemas["verdict"]);
        let reply = reply.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!((reply.value, reply.repaired, reply.usage.repairs), (value, false, 0));
    }
}
