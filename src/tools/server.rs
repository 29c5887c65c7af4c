//! One tool server: started when it is needed, asked, started again when it died.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, CallToolResponse, ClientConfig, ClientRequest, Implementation, PingRequest};
use rmcp::service::{Peer, RoleClient, RunningService, ServiceError};
use rmcp::transport::async_rw::AsyncRwTransport;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::flow::Flow;
use super::listing::{self, ListedTool};
use super::process::Process;
use super::spec::ServerSpec;
use super::text;
use super::{ToolAnswer, ToolError};
use crate::wire::one_line;

/// Bytes of one message of a server; a longer one is dropped, and its call gets no answer.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a server may take to start and list its tools.
const START_S_MAX: u64 = 60;
/// Pause before a server that died is started again; doubled with every time.
const RESTART_MS: u64 = 250;
/// Longest such pause.
const RESTART_MS_MAX: u64 = 30_000;
/// Longest pause that a task waits for.
const PATIENCE_MS: u64 = 1_000;
/// A server that lived as long as this has nothing against it any more.
const STEADY_S: u64 = 60;
/// How long a server that let a call wait may take to say that it lives.
const PING_S_MAX: u64 = 5;
/// How long the connection of a server that is let go may take to close.
const CLOSE_MS_MAX: u64 = 500;
/// Characters of a server's words that an error repeats.
const SAID_CHARS_MAX: usize = 500;
/// Under which name a call's key travels in its `_meta`.
const KEY_META: &str = "oarlock/idempotency-key";

/// A configured server.
pub(super) struct McpServer {
    spec: ServerSpec,
    keeper: PathBuf,
    state: Mutex<State>,
}

/// What is known of its process.
#[derive(Default)]
struct State {
    live: Option<Live>,
    /// How often it died or did not start, since it last was steady.
    deaths: u32,
    /// Not to be started before this.
    pause_until: Option<Instant>,
}

/// A running server.
struct Live {
    service: RunningService<RoleClient, ClientConfig>,
    process: Process,
    tools: Arc<Vec<ListedTool>>,
    /// What it said since it was last asked for something.
    asked: Flow,
    since: Instant,
}

impl McpServer {
    pub(super) fn new(spec: ServerSpec, keeper: PathBuf) -> Self {
        Self { spec, keeper, state: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        self.spec.name()
    }

    /// The tools that it listed when it started.
    pub(super) async fn tools(&self, limit: Duration) -> Result<Arc<Vec<ListedTool>>, ToolError> {
        match tokio::time::timeout(limit, self.reach()).await {
            Ok(reached) => reached.map(|(_, tools)| tools),
            Err(_) => {
                // A start that was given up is as good as one that failed; another task's may have come through.
                if let Ok(mut state) = self.state.try_lock()
                    && state.live.is_none()
                {
                    state.died(self.name());
                }
                Err(self.not_started(format!("it was not ready within {} ms", limit.as_millis())))
            }
        }
    }

    /// Calls one of its tools.
    pub(super) async fn call(
        self: &Arc<Self>,
        tool: &str,
        arguments: Map<String, Value>,
        key: &str,
        limit: Duration,
    ) -> Result<ToolAnswer, ToolError> {
        let limit = limit.min(self.spec.call_time());
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        params.meta.get_or_insert_default().0.insert(KEY_META.to_owned(), key.into());
        // A call that is given up here, or dropped with the task, tells the server so.
        let asking = async {
            let (peer, _) = self.reach().await?;
            Ok(peer.call_tool_once(params).await)
        };
        let shown = || format!("{}/{tool}", self.name());
        match tokio::time::timeout(limit, asking).await {
            Ok(Ok(Ok(CallToolResponse::Complete(result)))) => Ok(text::answer(&result)),
            Ok(Ok(Ok(_))) => Err(ToolError::Refused {
                tool: shown(),
                said: "it wants to be asked in several steps, which is not supported".to_owned(),
            }),
            Ok(Ok(Err(error))) => Err(self.explain(shown(), error).await),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                tokio::spawn(self.clone().doubt());
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                Err(ToolError::Late { tool: shown(), limit_ms })
            }
        }
    }

    /// Lets it end.
    pub(super) async fn close(&self) {
        let live = self.state.lock().await.live.take();
        if let Some(Live { mut service, process, .. }) = live {
            // Closing its standard input is MCP's goodbye.
            let closed = service.close_with_timeout(Duration::from_millis(CLOSE_MS_MAX)).await;
            if let Err(error) = closed {
                tracing::debug!(server = self.name(), "its connection broke: {error}");
            }
            drop(service);
            process.end().await;
        }
    }

    /// The connection to a server that runs, and its tools; starts it when it does not. One that died is left alone for a
    /// pause; when that is long, nobody waits for it.
    async fn reach(&self) -> Result<(Peer<RoleClient>, Arc<Vec<ListedTool>>), ToolError> {
        let mut state = self.state.lock().await;
        loop {
            if let Some(live) = &state.live {
                if !live.service.is_transport_closed() {
                    live.asked.begin();
                    return Ok((live.service.peer().clone(), live.tools.clone()));
                }
                state.died(self.name());
            }
            let pause = state.pause_until.map(|until| until.saturating_duration_since(Instant::now()));
            match pause.filter(|pause| !pause.is_zero()) {
                None => break,
                Some(pause) if pause > Duration::from_millis(PATIENCE_MS) => {
                    let (deaths, left) = (state.deaths, pause.as_secs_f32());
                    return Err(self.not_started(format!("it ended {deaths} times, and is tried again in {left:.1} s")));
                }
                Some(pause) => {
                    drop(state);
                    tokio::time::sleep(pause).await;
                    state = self.state.lock().await;
                }
            }
        }
        match self.start().await {
            Ok(live) => {
                let reached = (live.service.peer().clone(), live.tools.clone());
                state.live = Some(live);
                Ok(reached)
            }
            Err(error) => {
                state.died(self.name());
                Err(error)
            }
        }
    }

    async fn start(&self) -> Result<Live, ToolError> {
        let started = Process::start(&self.spec, &self.keeper);
        let (mut process, stdout, stdin) = started.map_err(|error| self.not_started(error.to_string()))?;
        let asked = Flow::default();
        let transport =
            AsyncRwTransport::new_client(asked.bound(stdout), stdin).with_max_line_length(MESSAGE_BYTES_MAX);
        let mut us = ClientConfig::default();
        us.client_info = Implementation::new("oarlock", env!("CARGO_PKG_VERSION"));
        let opening = async {
            let service = us.serve(transport).await.map_err(|error| error.to_string())?;
            let (tools, unusable) =
                listing::list(self.name(), service.peer()).await.map_err(|error| format!("its tools: {error}"))?;
            Ok::<_, String>((service, tools, unusable))
        };
        let opened = tokio::time::timeout(Duration::from_secs(START_S_MAX), opening).await;
        let opened = opened.unwrap_or_else(|_| Err(format!("it was not ready within {START_S_MAX} s")));
        match opened {
            Ok((service, tools, unusable)) => {
                unusable.iter().for_each(|error| tracing::warn!("failed to {error}"));
                tracing::info!(server = self.name(), tools = tools.len(), "a tool server is ready");
                Ok(Live { service, process, tools: Arc::new(tools), asked, since: Instant::now() })
            }
            Err(why) => {
                let said = process.last_words().await;
                Err(self.not_started(format!("{}; {said}", one_line(&why, SAID_CHARS_MAX))))
            }
        }
    }

    fn not_started(&self, why: String) -> ToolError {
        ToolError::Start { server: self.name().to_owned(), why }
    }

    /// What became of a call that got no result.
    async fn explain(&self, tool: String, error: ServiceError) -> ToolError {
        match error {
            ServiceError::McpError(error) => {
                ToolError::Refused { tool, said: one_line(&error.message, SAID_CHARS_MAX) }
            }
            ServiceError::TransportClosed | ServiceError::TransportSend(_) => {
                let mut state = self.state.lock().await;
                let dead = state.live.as_mut().filter(|live| live.service.is_transport_closed());
                let said = match dead {
                    Some(live) => live.process.last_words().await,
                    None => "and was started again meanwhile".to_owned(),
                };
                ToolError::Ended { tool, said }
            }
            error => ToolError::Refused { tool, said: one_line(&error.to_string(), SAID_CHARS_MAX) },
        }
    }

    /// After a call that got no answer: a server that does not even answer a ping is ended, and the next call starts it anew.
    async fn doubt(self: Arc<Self>) {
        let Some((peer, since)) =
            self.state.lock().await.live.as_ref().map(|live| (live.service.peer().clone(), live.since))
        else {
            return;
        };
        let ping = peer.send_request(ClientRequest::PingRequest(PingRequest::default()));
        // A refusal is an answer too.
        let answered = tokio::time::timeout(Duration::from_secs(PING_S_MAX), ping).await;
        if matches!(answered, Ok(Ok(_) | Err(ServiceError::McpError(_)))) {
            return;
        }
        let mut state = self.state.lock().await;
        if state.live.as_ref().is_some_and(|live| live.since == since) {
            tracing::warn!(server = self.name(), "a tool server does not answer and is ended");
            state.died(self.name());
        }
    }
}

impl State {
    /// Ends what is left of it and decides when it may be started again.
    fn died(&mut self, name: &str) {
        let steady = self.live.take().is_some_and(|live| live.since.elapsed() > Duration::from_secs(STEADY_S));
        self.deaths = if steady { 1 } else { self.deaths.saturating_add(1) };
        let pause = restart_pause(self.deaths);
        tracing::warn!(
            server = name,
            deaths = self.deaths,
            "a tool server ended; it may be started again in {pause:?}"
        );
        self.pause_until = Some(Instant::now() + pause);
    }
}

fn restart_pause(deaths: u32) -> Duration {
    let doubled = RESTART_MS.saturating_mul(1 << deaths.saturating_sub(1).min(10));
    Duration::from_millis(doubled.min(RESTART_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_before_a_restart_grows_to_its_limit() {
        let pauses: Vec<u128> = [1, 2, 3, 8, u32::MAX].map(|deaths| restart_pause(deaths).as_millis()).to_vec();
        assert_eq!(pauses, [250, 500, 1_000, 30_000, 30_000]);
    }
}
