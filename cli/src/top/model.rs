//! What `top` knows and what was chosen: no terminal in here.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::rates::Row;

/// What topics may be sorted by, in the order of the columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Column {
    #[default]
    Topic,
    Rate,
    Bytes,
    Publishers,
    Subscribers,
    Lag,
    Missed,
}

impl Column {
    pub(super) const ALL: [Column; 7] = [
        Column::Topic,
        Column::Rate,
        Column::Bytes,
        Column::Publishers,
        Column::Subscribers,
        Column::Lag,
        Column::Missed,
    ];

    /// Names upwards, numbers downwards: what matters is on top.
    fn compare(self, one: &Row, other: &Row) -> Ordering {
        let number =
            |a: Option<f64>, b: Option<f64>| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0));
        let order = match self {
            Column::Topic => Ordering::Equal,
            Column::Rate => number(one.rate, other.rate),
            Column::Bytes => number(one.bytes_per_second, other.bytes_per_second),
            Column::Publishers => other.publishers.cmp(&one.publishers),
            Column::Subscribers => other.subscribers.cmp(&one.subscribers),
            Column::Lag => other.lag.cmp(&one.lag),
            Column::Missed => other.missed.cmp(&one.missed),
        };
        order.then_with(|| one.info.name.cmp(&other.info.name))
    }
}

/// Everything that is drawn.
#[derive(Debug, Default)]
pub(super) struct Model {
    rows: Vec<Row>,
    pub(super) unreadable: usize,
    /// Name of the selected topic: it stays selected wherever it goes.
    selected: Option<String>,
    pub(super) sort: Column,
    pub(super) reverse: bool,
    /// Part of the names that are shown.
    pub(super) filter: String,
    pub(super) is_typing: bool,
    pub(super) hides_details: bool,
    /// Command names by process, of the selected topic.
    commands: HashMap<u32, String>,
}

impl Model {
    /// Takes what was seen now.
    pub(super) fn update(&mut self, rows: Vec<Row>, unreadable: usize) {
        self.rows = rows;
        self.unreadable = unreadable;
        self.commands.clear();
    }

    /// The topics that are shown, in order.
    pub(super) fn shown(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> =
            self.rows.iter().filter(|row| row.info.name.contains(&self.filter)).collect();
        rows.sort_by(|one, other| self.sort.compare(one, other));
        if self.reverse {
            rows.reverse();
        }
        rows
    }

    /// Place of the selected topic among those shown: of the first one where it is not shown.
    pub(super) fn selected(&self) -> Option<usize> {
        let shown = self.shown();
        let is_it = |row: &&Row| Some(&row.info.name) == self.selected.as_ref();
        shown.iter().position(is_it).or((!shown.is_empty()).then_some(0))
    }

    /// Selects the topic `by` places further down.
    pub(super) fn select(&mut self, by: isize) {
        let Some(now) = self.selected() else { return };
        let shown = self.shown();
        let next = now.saturating_add_signed(by).min(shown.len() - 1);
        self.selected = Some(shown[next].info.name.clone());
    }

    pub(super) fn sort_next(&mut self) {
        let at = Column::ALL.iter().position(|column| *column == self.sort).unwrap_or(0);
        self.sort = Column::ALL[(at + 1) % Column::ALL.len()];
    }

    /// Name of the command of process `pid`, as far as this pid namespace knows; looked up once per update.
    pub(super) fn command(&mut self, pid: u32) -> &str {
        self.commands.entry(pid).or_insert_with(|| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            name.map_or_else(|_| "-".to_owned(), |name| name.trim_end().to_owned())
        })
    }
}
