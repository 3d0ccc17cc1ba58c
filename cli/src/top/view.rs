//! Draws the model.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::{Cell, Paragraph, Row as Line, Table, TableState};
use shmbus::{ParticipantInfo, ParticipantKind};

use super::model::{Column, Model};
use crate::rates::Row;
use crate::text;

const HELP: &str = "arrows select  s sort  r reverse  / filter  Tab details  q quit";
const HEADINGS: [&str; 7] = ["TOPIC", "RATE", "BYTES/S", "PUBS", "SUBS", "LAG", "MISSED"];
const WIDTHS: [u16; 7] = [24, 10, 12, 5, 5, 10, 12];
const WHO: [&str; 9] =
    ["KIND", "ENTRY", "PID", "COMMAND", "ALIVE", "LAG", "MISSED", "HELD", "JOINED"];
const WHO_WIDTHS: [u16; 9] = [9, 5, 8, 16, 5, 10, 12, 5, 12];

pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, is_coloured: bool) {
    let shown: Vec<Row> = model.shown().into_iter().cloned().collect();
    let selected = model.selected();
    let below = selected.and_then(|at| shown.get(at)).filter(|_| !model.hides_details);
    let below_len = below.map_or(0, |row| row.info.participants.len() as u16 + 3);
    let [title, topics, details, help] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(4),
        Constraint::Max(below_len.min(frame.area().height / 2)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let unreadable = match model.unreadable {
        0 => String::new(),
        count => format!(", {count} cannot be read"),
    };
    let title_text = format!("shmbus top - {} topics{unreadable}", shown.len());
    frame.render_widget(Paragraph::new(title_text), title);
    draw_topics(frame, topics, model, &shown, selected);
    if let Some(row) = below {
        draw_details(frame, details, model, row, is_coloured);
    }
    let text = match (model.is_typing, model.filter.is_empty()) {
        (true, _) => format!("/{}_  Enter keeps, Esc clears", model.filter),
        (false, true) => HELP.to_owned(),
        (false, false) => format!("filter: {}  {HELP}", model.filter),
    };
    frame.render_widget(Paragraph::new(text), help);
}

fn draw_topics(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    shown: &[Row],
    selected: Option<usize>,
) {
    let mark = if model.reverse { "^" } else { "*" };
    let heading = |(column, name): (Column, &str)| {
        Cell::from(if column == model.sort { format!("{name}{mark}") } else { name.to_owned() })
    };
    let header = Line::new(Column::ALL.into_iter().zip(HEADINGS).map(heading));
    let lines = shown.iter().map(|row| {
        let about = if row.info.variable_len { "~" } else { "" };
        let bytes = |bytes: f64| format!("{about}{}", text::size(bytes as u64));
        Line::new([
            row.info.name.clone(),
            text::or_dash(row.rate.map(text::rate)),
            text::or_dash(row.bytes_per_second.map(bytes)),
            text::count(row.publishers),
            text::count(row.subscribers),
            row.lag.to_string(),
            row.missed.to_string(),
        ])
    });
    let table = Table::new(lines, widths(&WIDTHS))
        .header(header.style(Style::new().add_modifier(Modifier::BOLD)))
        .highlight_symbol("> ")
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_details(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &mut Model,
    row: &Row,
    is_coloured: bool,
) {
    let [title, table] = Layout::vertical([Constraint::Length(2), Constraint::Min(1)]).areas(area);
    let title_text = format!(
        "\n{}: {}, {} published, {}, {} found dead",
        row.info.name,
        row.info.type_name,
        row.info.head,
        text::size(row.info.memory.total()),
        row.info.deaths
    );
    frame.render_widget(Paragraph::new(title_text), title);
    let lines: Vec<Line<'_>> = row
        .info
        .participants
        .iter()
        .map(|one| {
            let line = Line::new(participant(one, model.command(one.pid)));
            let is_marked = one.liveness.is_dead() && is_coloured;
            line.style(if is_marked { Style::new().fg(Color::Red) } else { Style::new() })
        })
        .collect();
    let header = Line::new(WHO).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(lines, widths(&WHO_WIDTHS)).header(header), table);
}

fn participant(one: &ParticipantInfo, command: &str) -> [String; 9] {
    let kind = match one.kind {
        ParticipantKind::Publisher => "publisher",
        ParticipantKind::Lossy => "lossy",
        ParticipantKind::Reliable => "reliable",
        _ => "other",
    };
    [
        kind.to_owned(),
        one.entry.to_string(),
        one.pid.to_string(),
        // A dead one's number may be another process's by now.
        if one.liveness.is_dead() { "-" } else { command }.to_owned(),
        if one.liveness.is_dead() { "DEAD" } else { text::alive(one.liveness) }.to_owned(),
        one.lag.to_string(),
        one.missed.to_string(),
        one.held_blocks.to_string(),
        text::ago(one.joined_ns),
    ]
}

fn widths(widths: &[u16]) -> Vec<Constraint> {
    widths.iter().map(|&width| Constraint::Length(width)).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use shmbus::{Delivery, Directory, Topic, TopicOptions};

    use super::super::keys::{Go, press};
    use super::*;
    use crate::rates::Moment;

    fn lines(model: &mut Model) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(100, 16)).unwrap();
        terminal.draw(|frame| draw(frame, model, false)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..100).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..16).map(|y| line(y).trim_end().to_owned()).collect()
    }

    fn key(model: &mut Model, code: KeyCode) -> Go {
        press(model, KeyEvent::new(code, KeyModifiers::NONE))
    }

    /// Topics a, b and c; b has a publisher, a lossy subscriber three messages behind, and moves.
    fn with_model(check: impl FnOnce(&mut Model)) {
        let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
        let directory = Directory::at(scratch.path()).unwrap();
        let options = TopicOptions { depth: 16, ..Default::default() };
        let make = |name| Topic::<u64>::create_in(&directory, name, &options).unwrap();
        let [_a, b, _c] = ["a", "b", "c"].map(make);
        let mut publisher = b.publisher().unwrap();
        let _subscriber = b.subscriber(Delivery::Lossy).unwrap();
        let before = Moment::read(&directory, &[]).unwrap();
        for i in 0..3 {
            publisher.publish(&i).unwrap();
        }
        let mut model = Model::default();
        model.update(Moment::read(&directory, &[]).unwrap().since(Some(&before)), 0);
        check(&mut model);
    }

    #[test]
    fn topics_are_shown_with_who_takes_part_in_the_selected_one() {
        with_model(|model| {
            key(model, KeyCode::Down);
            let lines = lines(model);
            assert_eq!(lines[0], "shmbus top - 3 topics");
            assert!(lines[1].contains("TOPIC*") && lines[1].contains("BYTES/S"), "{}", lines[1]);
            assert!(lines[2].starts_with("  a ") && lines[3].starts_with("> b "), "{lines:?}");
            assert!(lines.iter().any(|line| line.starts_with("b: u64, 3 published")), "{lines:?}");
            let pid = std::process::id().to_string();
            let of_kind = |kind: &str| lines.iter().find(|line| line.starts_with(kind)).unwrap();
            assert!(of_kind("publisher").contains(&pid) && of_kind("publisher").contains(" yes "));
            let words: Vec<&str> = of_kind("lossy").split_whitespace().collect();
            assert!(words.contains(&"3"), "{words:?}");
            assert_eq!(lines[15], HELP);
        });
    }

    #[test]
    fn keys_select_sort_filter_and_end() {
        with_model(|model| {
            let names = |model: &Model| -> Vec<String> {
                model.shown().iter().map(|row| row.info.name.clone()).collect()
            };
            key(model, KeyCode::Char('j'));
            assert_eq!(model.selected(), Some(1));
            key(model, KeyCode::Char('s'));
            assert_eq!(names(model), ["b", "a", "c"]); // by rate
            assert_eq!(model.selected(), Some(0)); // still b
            key(model, KeyCode::Char('r'));
            assert_eq!(names(model), ["c", "a", "b"]);
            key(model, KeyCode::Char('/'));
            key(model, KeyCode::Char('q')); // a letter like any other here
            assert_eq!((names(model).len(), model.selected()), (0, None));
            key(model, KeyCode::Backspace);
            key(model, KeyCode::Char('a'));
            key(model, KeyCode::Enter);
            assert_eq!(names(model), ["a"]);
            key(model, KeyCode::Tab);
            assert!(!lines(model).iter().any(|line| line.contains("published")));
            assert_eq!(key(model, KeyCode::Char('q')), Go::End);
            let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(press(model, interrupt), Go::Interrupt);
        });
    }

    #[test]
    fn a_dead_participant_is_said_to_be_dead_and_has_no_command() {
        with_model(|model| {
            let mut one = model.shown()[1].info.participants[0].clone();
            one.liveness = shmbus::Liveness::Dead;
            assert_eq!(participant(&one, "other")[3..5], ["-".to_owned(), "DEAD".to_owned()]);
        });
    }
}
