//! `oarlock watch`: runs and one run, live, on the whole terminal; with `--once` one frame of it as text.
//!
//! Three parts that know little of each other: `feed` reads the store and listens, and hands out whole snapshots, the newest
//! of which counts; `state` says what is looked at, and what a key changes in that; `draw` makes a frame of both. The loop
//! here waits for keys, snapshots and signals, and never for the server.

mod draw;
mod feed;
mod state;

use std::io::IsTerminal;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::feed::{Feed, Snapshot};
use self::state::Screen;
use super::answer::out;
use super::args::WatchArgs;
use super::attach;
use super::config::Config;
use super::exit::{Exit, ended};
use super::show::no_run;
use super::talk::coloured;
use crate::store::Store;

/// Width and height of a frame that goes to no terminal.
const FRAME_DEFAULT: (u16, u16) = (100, 30);
/// How often times go on when nothing happens.
const TICK_MS: u64 = 1_000;

pub(super) async fn watch(config: &Config, args: WatchArgs) -> anyhow::Result<()> {
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !args.once && !terminal {
        let how = "--once prints one frame, and `oarlock logs <run> -f` follows a run";
        return Err(ended(Exit::Usage, format!("watch needs a terminal; {how}")));
    }
    let reached = attach::server(config).await?;
    if let Some(run) = &args.run
        && Store::new(&reached.bus).runs.record(run).await?.is_none()
    {
        return Err(no_run(config, run));
    }
    let feed = Feed::new(&reached.bus, config.runs.rules.clone());
    if args.once {
        let snapshot = feed.once(args.run.as_ref()).await?;
        return print_frame(Screen::new(args.run.clone()), snapshot, &args);
    }
    let (wanted, asked) = watch::channel(args.run.clone());
    let (filled, snapshots) = watch::channel(Snapshot::default());
    let feeding = tokio::spawn(feed.run(asked, filled));
    let outcome = live(Screen::new(args.run), snapshots, wanted).await;
    feeding.abort();
    outcome
}

/// One frame, as text.
fn print_frame(mut screen: Screen, snapshot: Snapshot, args: &WatchArgs) -> anyhow::Result<()> {
    let (width, height) =
        crossterm::terminal::size().ok().filter(|_| std::io::stdout().is_terminal()).unwrap_or(FRAME_DEFAULT);
    let (width, height) = (args.width.unwrap_or(width), args.height.unwrap_or(height));
    screen.take(snapshot);
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| draw::draw(frame, &screen, false))?;
    for row in draw::rows_of(terminal.backend().buffer()) {
        out(row.trim_end())?;
    }
    Ok(())
}

/// Gives the terminal back, however this ends; a panic does the same by itself.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn live(
    mut screen: Screen,
    mut snapshots: watch::Receiver<Snapshot>,
    wanted: watch::Sender<Option<crate::wire::RunId>>,
) -> anyhow::Result<()> {
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminal = ratatui::try_init()?;
    let _restored = Restored;
    let mut keys = EventStream::new();
    loop {
        terminal.draw(|frame| draw::draw(frame, &screen, coloured()))?;
        tokio::select! {
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if screen.key(key) {
                        return Ok(());
                    }
                    wanted.send_if_modified(|now| {
                        let changed = *now != screen.run;
                        now.clone_from(&screen.run);
                        changed
                    });
                }
                // A new size, for one: the next frame has it.
                Some(Ok(_)) => {}
                // The terminal is gone.
                Some(Err(_)) | None => return Ok(()),
            },
            changed = snapshots.changed() => match changed {
                Ok(()) => screen.take(snapshots.borrow_and_update().clone()),
                Err(_) => return Err(ended(Exit::Failed, "the reader of the store ended; -v says more, and watch again")),
            },
            () = tokio::time::sleep(Duration::from_millis(TICK_MS)) => {}
            _ = interrupt.recv() => return Err(ended(Exit::Interrupted, "interrupted")),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}
