//! `oarlock demo`: the main job on recorded model replies, everything else real.

use std::io::Write;

use anyhow::Context;

use super::args::{DemoArgs, DemoName};
use super::asking::Person;
use super::config::Config;
use super::fleet::{ModelSource, Place};
use super::run::{Delivery, Submission, on_interrupt, with_local_fleet};
use super::talk::say;

/// A recorded goal: its words, and the replies that a model gave.
struct Demo {
    goal: &'static str,
    script: &'static str,
}

impl DemoName {
    fn demo(self) -> Demo {
        match self {
            DemoName::Fibonacci => {
                Demo { goal: "Write a function to calculate fibonacci", script: include_str!("demo/fibonacci.json") }
            }
            DemoName::Todo => Demo {
                goal: "Build a REST API for a todo app with CRUD endpoints, authentication, unit tests and documentation",
                script: include_str!("demo/todo.json"),
            },
        }
    }
}

pub(super) async fn demo(config: &Config, args: DemoArgs) -> anyhow::Result<()> {
    let demo = args.which.demo();
    say("demo: the model's replies are recorded; the server, the role processes, the files and pytest are real");
    say(&format!("goal: {}", demo.goal));
    let mut script = tempfile::NamedTempFile::with_prefix("oarlock-demo-").context("make a temporary file")?;
    script.write_all(demo.script.as_bytes()).context("write the recorded replies")?;
    let on_interrupt = on_interrupt(config, None)?;
    let delivery = Delivery {
        out: args.out,
        json: args.json,
        timeout: None,
        kept: false,
        on_interrupt,
        person: Person::at_terminal(config),
    };
    let source = ModelSource::Script(script.path().to_owned());
    with_local_fleet(config, Place::Private, source, &Submission::of(demo.goal), &delivery).await
}
