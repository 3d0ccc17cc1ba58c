//! Tables that read well on a terminal and are markdown as well.

use crate::record::{Group, Results};

/// A column: its heading, the value that it shows, what that is divided by, and digits behind the point.
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    pub(crate) value: &'static str,
    pub(crate) unit: f64,
    pub(crate) digits: usize,
}

pub(crate) const fn column(
    heading: &'static str,
    value: &'static str,
    unit: f64,
    digits: usize,
) -> Column {
    Column { heading, value, unit, digits }
}

/// Rows of cells, the first of them headings.
pub(crate) struct Table(pub(crate) Vec<Vec<String>>);

impl Table {
    /// A row for each case and placement: medians over the rounds, with the spread of the first column.
    pub(crate) fn of(results: &Results, columns: &[Column]) -> Table {
        let groups = results.groups();
        let is_needed = |differs: &dyn Fn(&Group<'_>) -> bool| groups.iter().any(differs);
        let first = groups.first();
        let has_variants = is_needed(&|group| !group.case.variant.is_empty());
        let has_payloads = is_needed(&|g| first.is_some_and(|f| f.case.payload != g.case.payload));
        let has_receivers =
            is_needed(&|g| first.is_some_and(|f| f.case.receivers != g.case.receivers));
        let mut heading = Vec::new();
        heading.extend(has_variants.then_some("what"));
        heading.extend(has_payloads.then_some("bytes"));
        heading.extend(has_receivers.then_some("receivers"));
        heading.extend(["wait", "transport", "cores", "rounds"]);
        let mut heading: Vec<String> = heading.into_iter().map(str::to_owned).collect();
        for (index, column) in columns.iter().enumerate() {
            heading.push(column.heading.to_owned());
            if index == 0 {
                heading.push("(lowest, highest)".to_owned());
            }
        }
        let mut rows = vec![heading];
        for group in &groups {
            let case = group.case;
            let mut row = Vec::new();
            row.extend(has_variants.then(|| case.variant.clone()));
            row.extend(has_payloads.then(|| bytes(case.payload)));
            row.extend(has_receivers.then(|| case.receivers.to_string()));
            let short = if group.is_oversubscribed() { ", oversubscribed" } else { "" };
            row.push(case.wait.name().to_owned());
            row.push(case.transport.clone());
            row.push(format!("{} {:.0} ns{short}", group.class.name(), group.probe_ns()));
            row.push(group.runs.len().to_string());
            for (index, column) in columns.iter().enumerate() {
                let spread = group.spread(column.value);
                let cell = |value: f64| number(value / column.unit, column.digits);
                row.push(spread.map_or_else(String::new, |[_, median, _]| cell(median)));
                if index == 0 {
                    let range = |[low, _, high]: [f64; 3]| format!("{}, {}", cell(low), cell(high));
                    row.push(spread.map_or_else(String::new, range));
                }
            }
            rows.push(row);
        }
        Table(rows)
    }

    /// Aligned; the first row is the heading.
    pub(crate) fn markdown(&self) -> String {
        let width = |column: usize| {
            self.0.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..).map_while(width).collect();
        let mut text = String::new();
        for (index, row) in self.0.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
            text.extend(["|".to_owned()].into_iter().chain(cells).chain(["\n".to_owned()]));
            if index == 0 {
                let rules = widths.iter().map(|width| format!("{}|", "-".repeat(width + 2)));
                text.extend(["|".to_owned()].into_iter().chain(rules).chain(["\n".to_owned()]));
            }
        }
        text
    }
}

/// With separators of thousands.
pub(crate) fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((&*text, ""), |(whole, rest)| (whole, rest));
    let mut separated = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !separated.ends_with('-') {
            separated.push(',');
        }
        separated.push(digit);
    }
    if rest.is_empty() { separated } else { format!("{separated}.{rest}") }
}

/// A length for people.
pub(crate) fn bytes(len: usize) -> String {
    match len {
        _ if len >= 1 << 20 && len.is_multiple_of(1 << 20) => format!("{} MiB", len >> 20),
        _ if len >= 1 << 10 && len.is_multiple_of(1 << 10) => format!("{} KiB", len >> 10),
        _ => format!("{len} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_and_lengths_their_largest_unit() {
        assert_eq!(number(1_234_567.891, 1), "1,234,567.9");
        assert_eq!((number(-1234.0, 0), number(999.0, 0)), ("-1,234".to_owned(), "999".to_owned()));
        assert_eq!([bytes(8), bytes(2048), bytes(1 << 24)], ["8 B", "2 KiB", "16 MiB"]);
        assert_eq!(bytes(1025), "1025 B");
    }

    #[test]
    fn a_table_is_aligned() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let table = Table(vec![row(["a", "µs"]), row(["pipe", "1"])]);
        assert_eq!(table.markdown(), "| a    | µs |\n|------|----|\n| pipe | 1  |\n");
    }
}
