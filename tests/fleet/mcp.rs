//! Roles with tools: real role processes, a real MCP server that nobody here wrote, a scripted model that calls it.

use std::path::Path;

use async_nats::Subscriber;
use futures::StreamExt;
use oarlock::wire::{Event, EventKind, Reply, Role};
use serde_json::{Value, json};

use crate::aimock_process::Aimock;
use crate::harness::rules::script;
use crate::harness::{TestServer, Worker, ended, oarlock, until, until_within};
use crate::mcp_servers::{everything, heard, lives, peer, processes};

/// A researcher or synthesizer whose file allows some tools, with the lines of its configuration.
struct Bench {
    server: TestServer,
    events: Subscriber,
}

impl Bench {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let events = server.bus.client.subscribe("oarlock.event.*.tool").await.unwrap();
        Self { server, events }
    }

    /// Starts a worker of `role` with `tools` and more lines of limits in its file, and this configuration.
    async fn worker(&self, role: Role, tools: &str, limits: &str, config: &str, rules: &[Value]) -> Worker {
        let script = self.server.file("script.json", &script(rules)).display().to_string();
        self.worker_of(role, tools, limits, config, &["--script", &script]).await
    }

    /// The same, with a model of another kind.
    async fn worker_of(&self, role: Role, tools: &str, limits: &str, config: &str, model: &[&str]) -> Worker {
        let folder = self.server.folder.path().join("roles");
        std::fs::create_dir_all(&folder).unwrap();
        let path = format!("{}/roles/{role}.md", env!("CARGO_MANIFEST_DIR"));
        let file = std::fs::read_to_string(path).unwrap();
        let file = file.replace("model: default", &format!("model: default\ntools: [{tools}]"));
        let file = file.replace("limits:\n", &format!("limits:\n{limits}"));
        std::fs::write(folder.join(format!("{role}.md")), file).unwrap();
        let config = self.server.file("tools.toml", config);
        let mut worker = Worker::spawn(&self.server, role, |command| {
            command.arg("--config").arg(config).args(model);
            command.env("OARLOCK_ROLES", folder).env("NAMED", "fine").env("SECRET_KEY", "hunter2");
        });
        worker.ready(&self.server).await;
        worker
    }

    /// One task at the role's door; its reply whole.
    async fn ask(&self, role: Role, what: &str) -> Reply {
        let payload = json!({"description": what}).to_string();
        let answer = self.server.request(&format!("oarlock.ask.{role}"), payload).await;
        serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
    }

    /// The next event of a tool.
    async fn event(&mut self) -> Event {
        let message = tokio::time::timeout(crate::harness::WAIT, self.events.next()).await.expect("an event").unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    }
}

/// The lines that configure the foreign server.
fn foreign(program: &Path) -> String {
    format!("[mcp.all]\ncommand = {:?}\nargs = [\"stdio\"]\nenv = [\"NAMED\"]\n", program.display().to_string())
}

fn calls(role: Role, nth: u32, tool: &str, arguments: Value) -> Value {
    let step = json!({"call": {"tool": tool, "arguments": arguments}, "answer": null});
    json!({"match": {"role": role.name(), "nth": nth}, "response": {"json": step, "usage": {"input": 10, "output": 1}}})
}

/// Once the conversation holds `part`, the answer is `answer`.
fn answers(role: Role, part: &str, answer: Value) -> Value {
    let step = json!({"call": null, "answer": answer});
    let usage = json!({"input": 10, "output": 1});
    json!({"match": {"role": role.name(), "user_contains": part}, "response": {"json": step, "usage": usage}})
}

fn found(text: &str) -> Value {
    json!({"findings": [{"text": text, "source": "all/get-sum"}], "not_found": []})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_calls_the_tool_that_its_file_allows_and_uses_what_it_says() {
    let Some(program) = everything() else { return };
    let mut bench = Bench::new().await;
    let rules = [
        answers(Role::Researcher, "The sum of 20 and 22 is 42.", found("it is 42")),
        calls(Role::Researcher, 0, "all/get-sum", json!({"a": "many"})),
        calls(Role::Researcher, 1, "all/get-sum", json!("{\"a\": 20, \"b\": 22}")),
    ];
    let worker = bench.worker(Role::Researcher, "all/get-sum", "", &foreign(&program), &rules).await;
    let reply = bench.ask(Role::Researcher, "What is 20 and 22?").await;
    assert!(reply.text().contains("it is 42"), "{reply:?}");
    assert_eq!((reply.usage.calls, reply.usage.input), (3, 30), "every question counts");
    let (refused, called) = (bench.event().await, bench.event().await);
    assert_eq!((refused.kind, refused.role), (EventKind::Tool, Some(Role::Researcher)));
    assert!(refused.text.contains("do not fit its schema"), "{}", refused.text);
    assert!(called.text.contains("all/get-sum: 27 bytes in ") && called.text.ends_with("ok"), "{}", called.text);
    assert!(worker.log_text().contains("tool all/get-sum: 27 bytes"), "{}", worker.log_text());
}

/// A finding that names a tool as its source is held against the calls that were really made.
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_was_not_called_is_no_source() {
    let Some(program) = everything() else { return };
    let bench = Bench::new().await;
    let told = "was not called for this task; call it, or cite what the finding is really from";
    let rules = [
        answers(Role::Researcher, "The sum of 20 and 22 is 42.", found("it is 42")),
        json!({"match": {"role": "researcher", "user_contains": "Call it."}, "response":
            {"json": {"call": {"tool": "all/get-sum", "arguments": {"a": 20, "b": 22}}, "answer": null}}}),
        answers(Role::Researcher, "", found("I looked it up")),
    ];
    let worker = bench.worker(Role::Researcher, "all/get-sum", "", &foreign(&program), &rules).await;
    let claimed = bench.ask(Role::Researcher, "What is 20 and 22?").await;
    let marked = "- I looked it up [unsupported: it cites \"all/get-sum\", a tool that was not called]";
    assert!(claimed.text().contains(marked), "{claimed:?}");
    assert_eq!(claimed.usage.calls, 2, "it was told once: {told}");
    let called = bench.ask(Role::Researcher, "Call it. What is 20 and 22?").await;
    assert!(called.text().contains("- it is 42 [all/get-sum]"), "{called:?}");
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_tool_calling_of_its_own_uses_tools_over_http() {
    let Some(program) = everything() else { return };
    let fixture = |says: &str, content: Value| {
        let usage = json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110});
        json!({"match": {"userMessage": says}, "response": {"content": content.to_string(), "usage": usage}})
    };
    let call = json!({"call": {"tool": "all/get-sum", "arguments": {"a": 20, "b": 22}}, "answer": null});
    let answer = json!({"call": null, "answer": found("it is 42")});
    let fixtures = json!([fixture("The sum of 20 and 22 is 42.", answer), fixture("You can use tools before", call)]);
    let Some(aimock) = Aimock::start(fixtures).await else { return };
    let bench = Bench::new().await;
    let model = ["--model", "openai/gpt-test", "--base-url", &aimock.url];
    let _worker = bench.worker_of(Role::Researcher, "all/get-sum", "", &foreign(&program), &model).await;
    let reply = bench.ask(Role::Researcher, "What is 20 and 22?").await;
    assert!(reply.text().contains("it is 42"), "{reply:?}");
    assert_eq!((reply.usage.calls, reply.usage.input, reply.usage.output), (2, 200, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_not_allowed_is_refused_and_one_that_is_sees_no_secret() {
    let Some(program) = everything() else { return };
    let mut bench = Bench::new().await;
    let role = Role::Synthesizer;
    let refused = "there is none of that name for this role";
    let rules = [
        answers(role, "hunter2", json!("the secret got out")),
        calls(role, 0, "all/get-env", json!({})),
        answers(role, refused, json!("it was refused")),
    ];
    let worker = bench.worker(role, "all/echo", "", &foreign(&program), &rules).await;
    assert_eq!(bench.ask(role, "Look at the environment.").await.text(), "it was refused");
    assert!(bench.event().await.text.contains(refused));
    drop(worker);

    let rules = [
        answers(role, "hunter2", json!("the secret got out")),
        calls(role, 0, "all/get-env", json!({})),
        answers(role, "\"NAMED\": \"fine\"", json!("only what was named")),
    ];
    let _worker = bench.worker(role, "all/get-env", "", &foreign(&program), &rules).await;
    assert_eq!(bench.ask(role, "Look at the environment again.").await.text(), "only what was named");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_bounded_and_then_the_model_has_to_answer() {
    let Some(program) = everything() else { return };
    let mut bench = Bench::new().await;
    let role = Role::Synthesizer;
    let call = json!({"call": {"tool": "all/echo", "arguments": {"message": "again"}}, "answer": null});
    let rules = [
        answers(role, "You cannot call any more tools", json!("enough")),
        json!({"match": {"role": "synthesizer"}, "response": {"json": call}}),
    ];
    let _worker = bench.worker(role, "all/*", "  tool_calls: 3\n", &foreign(&program), &rules).await;
    let reply = bench.ask(role, "Go on for ever.").await;
    assert_eq!((reply.text(), reply.usage.calls), ("enough", 4));
    for _ in 0..3 {
        assert!(bench.event().await.text.starts_with("all/echo: "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_started_is_told_and_the_role_does_without() {
    let mut bench = Bench::new().await;
    let role = Role::Synthesizer;
    let rules = [answers(role, "The tools that you usually have are not to be had now", json!("without"))];
    // A table that is wrong is the matter of those who name it.
    let config = "[mcp.gone]\ncommand = \"/no/such/program\"\n[mcp.wrong]\ncommand = \"\"\n";
    let _worker = bench.worker(role, "gone/*", "", config, &rules).await;
    assert_eq!(bench.ask(role, "Do what you can.").await.text(), "without");
    let told = bench.event().await.text;
    assert!(told.contains("/no/such/program cannot be started") && told.contains("[mcp.gone]"), "{told}");

    let doctor = bench.server.file("doctor.toml", config);
    let mut command = oarlock(&bench.server);
    command.args(["doctor", "--server", bench.server.url(), "--config"]).arg(doctor);
    let said = ended(command, b"").await.out;
    assert!(said.contains("✗ failed to start the tool server gone") && said.contains("fix: run its command"), "{said}");
    assert!(said.contains("[mcp.wrong]") && said.contains("command is empty"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_lists_the_tools_of_a_server() {
    let Some(program) = everything() else { return };
    let server = TestServer::start().await;
    let config = server.file("tools.toml", &foreign(&program));
    let mut command = oarlock(&server);
    command.args(["doctor", "--server", server.url(), "--config"]).arg(config).env("NAMED", "fine");
    let said = ended(command, b"").await.out;
    assert!(said.contains("✓ tool server all: ") && said.contains("all/get-sum"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_merely_lies_there_starts_no_tool_server() {
    let server = TestServer::start().await;
    server.file("oarlock.toml", "[mcp.evil]\ncommand = \"/bin/sh\"\n");
    let mut command = oarlock(&server);
    command.arg("doctor");
    let refused = ended(command, b"").await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("mcp is not taken from it") && refused.err.contains("--config"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_leaves_no_process_of_a_tool_server() {
    let bench = Bench::new().await;
    let Some((_, log)) = peer(bench.server.folder.path(), "stubborn") else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fleet/mcp_peer.py");
    let config = format!(
        "[mcp.peer]\ncommand = \"/usr/bin/python3\"\nargs = [{script:?}, {:?}, \"stubborn\"]\ntime_s = 60\n",
        log.display().to_string()
    );
    let rules = [calls(Role::Synthesizer, 0, "peer/hang", json!({}))];
    let worker = bench.worker(Role::Synthesizer, "peer/hang", "", &config, &rules).await;
    bench.server.bus.client.publish("oarlock.ask.synthesizer", "Wait for it.".into()).await.unwrap();
    let called = || heard(&log).iter().any(|line| line["method"] == "tools/call");
    until("the tool to be called", async || called()).await;
    let started = processes(&log);
    assert_eq!(started.len(), 2, "the server and a process that it started");
    assert!(started.iter().all(|pid| lives(*pid)));
    worker.kill_9();
    let wait = std::time::Duration::from_secs(5);
    until_within("every process of the server to be gone", wait, async || !started.iter().any(|pid| lives(*pid))).await;
}
