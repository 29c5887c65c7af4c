//! A frame: a head with the run, the page, the newest messages below a plan, and a foot with the keys or what is typed.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, List, ListItem, ListState, Paragraph, Wrap};

use super::super::story::{first_line, short};
use super::super::talk::plain;
use super::state::{Page, Row, Screen, Typed};

/// Lines of messages below a plan; a third of the page at most.
const MESSAGES_LINES: u16 = 9;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, colour: bool) {
    let messages = match screen.page() {
        Page::Plan => MESSAGES_LINES.min(frame.area().height / 3),
        _ => 0,
    };
    let parts = [Constraint::Length(2), Constraint::Min(1), Constraint::Length(messages), Constraint::Length(1)];
    let [head, page, below, foot] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(screen)), head);
    draw_page(frame, screen, page, colour);
    if messages > 1 {
        let newest = screen.seen.events.iter().rev().take(usize::from(messages) - 1).rev();
        let lines: Vec<Line<'_>> = newest.map(|line| Line::raw(plain(line))).collect();
        frame.render_widget(Paragraph::new(lines).block(titled("messages")), below);
    }
    frame.render_widget(Paragraph::new(foot_line(screen)), foot);
}

fn head_lines(screen: &Screen) -> Vec<Line<'_>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let (title, goal) = match (&screen.run, &screen.seen.story) {
        (None, _) => (format!("oarlock  {} runs", screen.seen.runs.len()), String::new()),
        (Some(run), None) => (format!("oarlock  run {run}"), "…".to_owned()),
        (Some(_), Some(story)) => {
            let seen = &story.view;
            let (took, tokens) = (short(story.took(screen.seen.now())), seen.usage.input + seen.usage.output);
            let calls = seen.usage.calls;
            let title =
                format!("oarlock  run {}  {}  {took}  {calls} model calls  {tokens} tok", seen.run, seen.status.name());
            (title, plain(&first_line(&seen.goal)))
        }
    };
    vec![Line::styled(title, bold), Line::raw(goal)]
}

fn titled(title: &str) -> Block<'_> {
    Block::new().borders(Borders::TOP).title(format!(" {title} "))
}

fn draw_page(frame: &mut Frame<'_>, screen: &Screen, area: Rect, colour: bool) {
    let title = match screen.page() {
        Page::Runs => "runs".to_owned(),
        Page::Plan => "plan".to_owned(),
        Page::Task(task) => format!("task {task}"),
        Page::Logs => "messages".to_owned(),
        Page::Help => "keys".to_owned(),
    };
    let title = if screen.filter.is_empty() { title } else { format!("{title} /{}", plain(&screen.filter)) };
    let rows = screen.rows();
    let selected = screen.selected(rows.len());
    let block = titled(&title);
    match screen.page() {
        // Long texts are wrapped, and scrolled by their lines.
        Page::Task(_) | Page::Help => {
            let lines: Vec<Line<'_>> = rows.iter().map(|row| line(row, colour)).collect();
            let offset = u16::try_from(selected).unwrap_or(u16::MAX);
            let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((offset, 0)).block(block);
            frame.render_widget(text, area);
        }
        Page::Runs | Page::Plan | Page::Logs => {
            let items: Vec<ListItem<'_>> = rows.iter().map(|row| ListItem::new(line(row, colour))).collect();
            let reversed = Style::new().add_modifier(Modifier::REVERSED);
            let list = List::new(items).block(block).highlight_symbol("> ").highlight_style(reversed);
            let mut state = ListState::default().with_selected((!rows.is_empty()).then_some(selected));
            frame.render_stateful_widget(list, area, &mut state);
        }
    }
}

/// A row, its sign in colour.
fn line(row: &Row, colour: bool) -> Line<'static> {
    let tone = match row.mark {
        "✓" => Color::Green,
        "✗" => Color::Red,
        "…" | "?" => Color::Yellow,
        _ => return Line::raw(row.text.clone()),
    };
    match row.text.split_once(row.mark).filter(|_| colour) {
        Some((before, after)) => Line::from(vec![
            Span::raw(before.to_owned()),
            Span::styled(row.mark, Style::new().fg(tone)),
            Span::raw(after.to_owned()),
        ]),
        None => Line::raw(row.text.clone()),
    }
}

fn foot_line(screen: &Screen) -> Line<'_> {
    match (&screen.typed, &screen.notice, &screen.seen.trouble) {
        (Typed::Jump(text), ..) => Line::raw(format!(":{text}")),
        (Typed::Filter(text), ..) => Line::raw(format!("/{text}")),
        (_, Some(notice), _) => Line::raw(plain(notice)),
        (_, _, Some(trouble)) => Line::raw(format!("old, because: {}", plain(trouble))),
        _ => Line::raw(match screen.page() {
            Page::Runs => "enter open  / filter  : jump  ? keys  q leave",
            Page::Plan => "enter describe  l messages  / filter  : jump  esc runs  ? keys  q leave",
            Page::Task(_) | Page::Logs | Page::Help => "j k scroll  / filter  : jump  esc back  ? keys  q leave",
        }),
    }
}

/// A frame as lines of text.
pub(super) fn rows_of(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area();
    let row = |y: u16| {
        let mut text = String::new();
        let mut skip = 0;
        for x in 0..area.width {
            let Some(cell) = buffer.cell((x, y)) else { continue };
            if skip == 0 {
                text.push_str(cell.symbol());
                // A wide character covers the cell after it.
                skip = Span::raw(cell.symbol()).width().saturating_sub(1);
            } else {
                skip -= 1;
            }
        }
        text
    };
    (0..area.height).map(row).collect()
}
