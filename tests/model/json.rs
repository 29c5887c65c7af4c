//! JSON of a given shape: what is mended, what is asked again, what is given up.

use std::sync::Mutex;

use async_trait::async_trait;
use oarlock::model::{
    Author, ChatModel, ChatReply, ChatRequest, Finish, JsonError, ModelError, Way, complete_json, complete_json_checked,
};
use oarlock::wire::Usage;
use serde_json::json;

use crate::support::{request, with_schema};

/// Says one thing after the other, and keeps what it was asked.
struct Saying {
    replies: Mutex<Vec<(String, Finish)>>,
    asked: Mutex<Vec<ChatRequest>>,
}

impl Saying {
    fn new(replies: &[&str]) -> Self {
        Self::finishing(replies.iter().map(|text| (*text, Finish::Stop)).collect())
    }

    fn finishing(replies: Vec<(&str, Finish)>) -> Self {
        let replies = replies.into_iter().rev().map(|(text, finish)| (text.to_owned(), finish)).collect();
        Self { replies: Mutex::new(replies), asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<ChatRequest> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl ChatModel for Saying {
    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        self.asked.lock().unwrap().push(request.clone());
        let reply = self.replies.lock().unwrap().pop();
        let (text, finish) = reply.ok_or_else(|| ModelError::Settings("nothing more to say".into()))?;
        let usage = Usage { calls: 1, input: 10, output: 2, ..Usage::default() };
        Ok(ChatReply { text, finish, usage, model: "stub".into(), way: Way::default() })
    }

    fn name(&self) -> &str {
        "stub"
    }
}

fn asked_for_json() -> ChatRequest {
    with_schema(request("answer me"))
}

#[tokio::test]
async fn good_and_mendable_answers_need_one_question() {
    for (text, repaired) in [
        ("{\"answer\":\"yes\"}", false),
        ("<think>{\"answer\":1}</think>Here:\n```json\n{\"answer\":\"yes\"}\n```", false),
        ("{'answer': 'yes',}", true),
    ] {
        let model = Saying::new(&[text]);
        let reply = complete_json(&model, asked_for_json()).await.unwrap();
        assert_eq!((reply.value, reply.repaired), (json!({"answer": "yes"}), repaired), "{text}");
        assert_eq!((reply.usage.calls, reply.model.as_str()), (1, "stub"));
    }
}

#[tokio::test]
async fn the_schema_decides_between_several_values() {
    let model = Saying::new(&["Not {\"answer\": 5} and not {\"reply\": \"no\"}, but {\"answer\": \"yes\"}."]);
    let reply = complete_json(&model, asked_for_json()).await.unwrap();
    assert_eq!(reply.value, json!({"answer": "yes"}));
}

#[tokio::test]
async fn a_misfit_is_asked_again_once_with_its_path() {
    let model = Saying::new(&["{\"answer\": 5}", "{\"answer\":\"yes\"}"]);
    let reply = complete_json(&model, asked_for_json()).await.unwrap();
    assert!(reply.repaired);
    assert_eq!((reply.usage.calls, reply.usage.input), (2, 20));
    let second = &model.asked()[1].messages;
    assert_eq!(second.len(), 3);
    assert_eq!((second[1].author, second[1].text.as_str()), (Author::Assistant, "{\"answer\": 5}"));
    assert!(second[2].text.contains("/answer") && second[2].text.contains("string"), "{}", second[2].text);
    assert!(second[2].text.contains("\"minLength\":1"), "a server that heeds no schema: {}", second[2].text);
}

#[tokio::test]
async fn two_misfits_are_an_error_that_is_short_and_counts_the_cost() {
    let long = format!("{{\"answer\": {:?}, \"x\": 1}}", vec![7; 5000]);
    let model = Saying::new(&[&long, ""]);
    let error = complete_json(&model, asked_for_json()).await.unwrap_err();
    assert_eq!(error.usage().calls, 2);
    assert!(
        matches!(&error, JsonError::Invalid { complaints, .. } if complaints[0].contains("no whole JSON")),
        "{error}"
    );
    assert!(error.to_string().len() < 3000);
    assert!(model.asked()[1].messages[2].text.len() < 4000);
    assert_eq!(model.asked().len(), 2);
}

#[tokio::test]
async fn cut_off_and_refused_are_kinds_of_their_own() {
    let model = Saying::finishing(vec![("{\"answer\":\"yes\"}", Finish::Length)]);
    let error = complete_json(&model, asked_for_json()).await.unwrap_err();
    assert!(matches!(error, JsonError::CutOff { output_tokens: 256, usage } if usage.calls == 1));
    let model = Saying::finishing(vec![("I will not.", Finish::Refusal)]);
    let error = complete_json(&model, asked_for_json()).await.unwrap_err();
    assert!(matches!(&error, JsonError::Refused { said, .. } if said == "I will not."), "{error}");
}

#[tokio::test]
async fn the_callers_check_shares_the_second_question() {
    let check = |value: &serde_json::Value| match value["answer"].as_str() {
        Some("a cycle") => Err(vec!["/steps: s1 and s2 wait for each other".to_owned()]),
        other => Ok(other.unwrap_or_default().len()),
    };
    let model = Saying::new(&["{\"answer\":\"a cycle\"}", "{\"answer\":\"yes\"}"]);
    let reply = complete_json_checked(&model, asked_for_json(), check).await.unwrap();
    assert_eq!(reply.value, 3);
    assert!(model.asked()[1].messages[2].text.contains("wait for each other"));
    let model = Saying::new(&["{\"answer\":5}", "{\"answer\":\"a cycle\"}"]);
    let error = complete_json_checked(&model, asked_for_json(), check).await.unwrap_err();
    assert!(matches!(&error, JsonError::Invalid { complaints, .. } if complaints[0].contains("wait")), "{error}");
    assert_eq!(model.asked().len(), 2);
}

#[tokio::test]
async fn a_failing_model_and_a_wrong_schema_are_told_apart() {
    let error = complete_json(&Saying::new(&["{}"]), asked_for_json()).await.unwrap_err();
    assert!(
        matches!(error, JsonError::Model { usage, source } if usage.calls == 1 && matches!(*source, ModelError::Settings(_)))
    );
    let mut request = asked_for_json();
    request.schema.as_mut().unwrap().schema = json!({"type": "nonsense"});
    let error = complete_json(&Saying::new(&[]), request).await.unwrap_err();
    assert!(matches!(&error, JsonError::Schema { name, .. } if name == "answer"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let long = format!("{{\"answer\":\"{}\"}}", "x".repeat(oarlock::model::JSON_BYTES_MAX));
    let model = Saying::new(&[&long, "{\"answer\":\"yes\"}"]);
    assert!(complete_json(&model, asked_for_json()).await.unwrap().repaired);
    let again = &model.asked()[1].messages;
    assert!(again[2].text.contains("bytes") && again[1].text.len() < 40_000);
}
