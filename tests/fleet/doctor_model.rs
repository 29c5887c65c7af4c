//! `oarlock doctor --model`: what it says of a model is what servers of other people's did, in every form that is spoken.

use serde_json::{Value, json};

use crate::aimock_process::Aimock;
use crate::harness::{TestServer, ended};
use crate::mountebank_process::Mountebank;
use crate::tool::tool;

/// Each with its words for a whole answer and for one that was cut off.
const FORMS: [(&str, &str, &str); 4] = [
    ("openai", "stop", "length"),
    ("ollama", "stop", "length"),
    ("anthropic", "end_turn", "max_tokens"),
    ("gemini", "STOP", "MAX_TOKENS"),
];
/// Only the schema says what the number is called.
const FITS: &str = "{\"oarlock_sum\": 5}";
const GUESSED: &str = "{\"sum\": 5}";

/// The lines about the model that the server at `url` serves, each as `sign what | fix`.
async fn tried(server: &TestServer, form: &str, url: &str) -> Vec<String> {
    let model = format!("--model={form}/served");
    let mut command = tool(server, &["doctor", "--json", "--server", server.url(), &model, "--base-url", url]);
    // Nothing of what is tried here takes a Python.
    let report = ended(
        {
            command.env("OARLOCK_PYTHON", "/no/python");
            command
        },
        b"",
    )
    .await;
    let lines: Vec<Value> = serde_json::from_str(&report.out).unwrap_or_else(|error| panic!("{error}: {report:?}"));
    let what = |line: &Value| line["what"].as_str().unwrap().to_owned();
    let about = lines.iter().skip_while(|line| !what(line).starts_with("model ")).skip(1);
    let about = about.take_while(|line| !what(line).starts_with("cache: "));
    let line = |line: &Value| {
        let sign = line["level"].as_str().unwrap();
        format!("{sign} {} | {}", what(line), line["fix"].as_str().unwrap_or_default())
    };
    about.map(line).collect()
}

/// Each part is in a line of its own, in this order, and there is no other line.
fn assert_lines(about: &str, lines: &[String], parts: &[&str]) {
    assert_eq!(lines.len(), parts.len(), "{about}: {lines:#?}");
    for (line, part) in lines.iter().zip(parts) {
        assert!(line.contains(part), "{about}: {part:?} in {lines:#?}");
    }
}

fn answer(status: u16, headers: Value, body: &Value) -> Value {
    let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    json!({ "is": { "statusCode": status, "headers": headers, "body": body } })
}

/// A refusal that is not to be repeated.
fn refusal(status: u16, said: &str) -> Value {
    answer(status, json!({ "x-should-retry": "false" }), &json!({ "error": { "message": said } }))
}

/// An answer in one piece, without usage.
fn whole(form: &str, text: &str, finish: &str) -> Value {
    let body = match form {
        "anthropic" => json!({ "content": [{ "type": "text", "text": text }], "stop_reason": finish }),
        "gemini" => {
            json!({ "candidates": [{ "content": { "parts": [{ "text": text }] }, "finishReason": finish }] })
        }
        _ => json!({ "choices": [{ "message": { "content": text }, "finish_reason": finish }] }),
    };
    answer(200, json!({ "content-type": "application/json" }), &body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_everything_is_told_so_in_every_form() {
    let usage = json!({
        "prompt_tokens": 31, "completion_tokens": 5, "total_tokens": 36, "input_tokens": 31, "output_tokens": 5,
        "promptTokenCount": 31, "candidatesTokenCount": 5, "totalTokenCount": 36
    });
    let fixture = json!([{ "match": { "userMessage": "What is 2 + 3?" }, "chunkSize": 100,
        "response": { "content": FITS, "usage": usage } }]);
    let Some(aimock) = Aimock::start(fixture).await else { return };
    let server = TestServer::bare().await;
    for (form, ..) in FORMS {
        let lines = tried(&server, form, &aimock.url).await;
        let cache = match form {
            "anthropic" => "ok prompt cache: not asked for",
            _ => "ok prompt cache: the server told of no cached tokens",
        };
        let parts = [
            "ok the model answers, in ",
            "ok schema: the server takes it and heeds it; the answer fits at once",
            // Although the words came in a single piece.
            "ok streaming: the answer came as a stream",
            "ok usage: 31 tokens in, 5 out, as the server counts them; cost unknown",
            cache,
        ];
        assert_lines(form, &lines, &parts);
    }
    // For people the same.
    let arguments = ["doctor", "--server", server.url(), "--model=openai/served", "--base-url", &aimock.url];
    let report = ended(tool(&server, &arguments), b"").await.out;
    assert!(report.contains("\n✓ schema: the server takes it and heeds it; "), "{report}");
    assert!(report.contains("\n✓ prompt cache: ") && report.contains("\n✓ cache: "), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_schema_is_told_apart_in_every_form() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    let server = TestServer::bare().await;
    for (form, stop, cut) in FORMS {
        let answers = "ok the model answers, in ";
        let ends = [
            "note streaming: the server was asked for a stream and answered in one piece",
            "note usage: the server does not say",
            "ok prompt cache: ",
        ];
        let lines = async |acts: Vec<Value>| tried(&server, form, &mountebank.serve(acts).await.url).await;
        let ignored = lines(vec![whole(form, GUESSED, stop), whole(form, FITS, stop)]).await;
        let shape =
            "note schema: the server takes it and is not seen to heed it; the answer fits when it is asked for again";
        assert_lines(form, &ignored, &[answers, shape, ends[0], ends[1], ends[2]]);
        let mended = lines(vec![whole(form, "{'oarlock_sum': 5,}", stop)]).await;
        let shape = "note schema: the server takes it and is not seen to heed it; the answer fits after a repair";
        assert_lines(form, &mended, &[answers, shape, ends[0], ends[1], ends[2]]);
        let refused = lines(vec![refusal(400, "the schema is not supported"), whole(form, FITS, stop)]).await;
        let shape = "note schema: the server refuses it, so the prompt carries it; the answer fits at once";
        assert_lines(form, &refused, &[answers, shape, ends[0], ends[1], ends[2]]);
        let unfit = lines(vec![whole(form, GUESSED, stop)]).await;
        assert_lines(
            form,
            &unfit,
            &[answers, "broken schema: the answer does not fit, also when the model is shown it"],
        );
        assert!(unfit[1].contains("| take a larger model") && unfit[1].contains("oarlock_sum"), "{unfit:#?}");
        let ended = lines(vec![whole(form, "{\"oarlock_", cut)]).await;
        assert_lines(form, &ended, &[answers, "broken the answer is cut off at 1024 tokens"]);
        assert!(ended[1].contains("| give the server a longer window"), "{ended:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_trouble_has_its_own_line_and_fix() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    let server = TestServer::bare().await;
    let list = answer(200, json!({}), &json!({ "data": [{ "id": "other" }] }));
    let loading = refusal(503, "Loading model");
    let page = answer(200, json!({ "content-type": "text/html" }), &json!("<html>Welcome</html>"));
    for (form, acts, says, fix) in [
        ("openai", vec![refusal(401, "bad key")], "the key was refused", "set OPENAI_API_KEY to a key"),
        ("gemini", vec![refusal(400, "API key not valid")], "the key was refused", "set GEMINI_API_KEY to a key"),
        ("openai", vec![refusal(404, "no model served"), list], "it has other", "name a model that it has"),
        ("openai", vec![refusal(404, "Not Found")], "404: Not Found", "mend the model's name, or the base URL"),
        ("anthropic", vec![refusal(429, "slow down")], "rate limited", "wait and try again"),
        ("openai", vec![refusal(429, "insufficient_quota")], "credit", "add credit to the account"),
        ("openai", vec![loading], "Loading model", "wait until the server has loaded its model"),
        ("openai", vec![refusal(500, "oops")], "500: oops", "try again later; if it stays so"),
        ("openai", vec![page], "is not a completion", "mend the base URL"),
    ] {
        let lines = tried(&server, form, &mountebank.serve(acts).await.url).await;
        assert_lines(form, &lines, &["broken the model does not answer: "]);
        assert!(lines[0].contains(says) && lines[0].contains(&format!("| {fix}")), "{says}, {fix}: {lines:#?}");
    }
    let nobody = tried(&server, "openai", "http://127.0.0.1:9").await;
    assert_lines("nobody", &nobody, &["broken the model does not answer: "]);
    assert!(nobody[0].contains("127.0.0.1:9") && nobody[0].contains("| start the server"), "{nobody:#?}");

    let says_no = json!({ "choices": [{ "message": { "refusal": "I will not." }, "finish_reason": "stop" }] });
    let says_no = tried(&server, "openai", &mountebank.serve(vec![answer(200, json!({}), &says_no)]).await.url).await;
    let refuses = "broken the model refuses to say what 2 + 3 is: I will not.";
    assert_lines("refusal", &says_no, &["ok the model answers", refuses]);
    let pauses = mountebank.serve(vec![whole("anthropic", "", "pause_turn")]).await;
    let pauses = tried(&server, "anthropic", &pauses.url).await;
    assert_lines("pause", &pauses, &["ok the model answers", "broken the model pauses before its answer is whole"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_tokens_and_a_wrong_sum_are_told() {
    let Some(mountebank) = &Mountebank::start().await else { return };
    let server = TestServer::bare().await;
    let usage =
        json!({ "prompt_tokens": 31, "completion_tokens": 5, "prompt_tokens_details": { "cached_tokens": 20 } });
    let wrong = json!({ "choices": [{ "message": { "content": "{\"oarlock_sum\": 6}" }, "finish_reason": "stop" }],
        "usage": usage });
    let lines = tried(&server, "openai", &mountebank.serve(vec![answer(200, json!({}), &wrong)]).await.url).await;
    let parts = [
        "ok the model answers",
        "ok schema: the server takes it and heeds it",
        "note it says that 2 + 3 is {\"oarlock_sum\":6} | take a larger model",
        "note streaming: ",
        "ok usage: 31 tokens in, 5 out",
        "ok prompt cache: 20 tokens read, 0 written",
    ];
    assert_lines("openai", &lines, &parts);
    let usage = json!({ "input_tokens": 11, "output_tokens": 5, "cache_read_input_tokens": 20 });
    let read = json!({ "content": [{ "type": "text", "text": FITS }], "stop_reason": "end_turn", "usage": usage });
    let lines = tried(&server, "anthropic", &mountebank.serve(vec![answer(200, json!({}), &read)]).await.url).await;
    assert!(lines.iter().any(|line| line.contains("ok usage: 31 tokens in")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("ok prompt cache: 20 tokens read")), "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_waits_of_a_call_are_set_by_variables_and_nonsense_is_refused() {
    let (Some(mountebank), Some(aimock)) = (&Mountebank::start().await, Aimock::start(slow()).await) else { return };
    let server = TestServer::bare().await;
    let told = async |variable: (&str, &str), url: &str| {
        let arguments = ["doctor", "--server", server.url(), "--model=openai/served", "--base-url", url];
        let mut command = tool(&server, &arguments);
        command.envs([variable, ("OARLOCK_PYTHON", "/no/python")]);
        ended(command, b"").await
    };
    let mut late = whole("openai", FITS, "stop");
    late["_behaviors"] = json!({ "wait": 3_000 });
    let late = mountebank.serve(vec![late]).await;
    // Each is tried four times.
    let first = told(("OARLOCK_FIRST_BYTE_S", "1"), &late.url);
    let (first, next) = tokio::join!(first, told(("OARLOCK_READ_S", "1"), &aimock.url));
    for (report, says) in
        [(first, "not a word for 1 s; raise first_byte_s"), (next, "nothing more for 1 s; raise read_s")]
    {
        assert_eq!(report.code, Some(1), "{report:?}");
        assert!(report.out.contains(says) && report.out.contains("fix: look at the server's load"), "{report:?}");
    }
    assert!(
        told(("OARLOCK_READ_S", "9"), &aimock.url).await.out.contains("✓ schema: "),
        "the same server, with patience"
    );
    for (variable, value, says) in [
        ("OARLOCK_FIRST_BYTE_S", "0", "first_byte_s is 0; it must be 1 to 100000"),
        ("OARLOCK_READ_S", "soon", "OARLOCK_READ_S"),
        ("OARLOCK_PROVIDER_CALLS_MAX", "0", "provider_calls_max of \"*\" is 0"),
        ("OARLOCK_MODEL_CALLS_MAX", "-1", "OARLOCK_MODEL_CALLS_MAX"),
    ] {
        let refused = told((variable, value), &aimock.url).await;
        assert_eq!(refused.code, Some(2), "{variable}: {refused:?}");
        assert!(refused.err.contains(says), "{variable}: {refused:?}");
    }
}

/// Two pieces with a pause of some two seconds between them.
fn slow() -> Value {
    json!([{ "match": { "userMessage": "What is 2 + 3?" }, "chunkSize": 12, "response": { "content": FITS },
        "streamingProfile": { "ttft": 50, "tps": 0.5 } }])
}
