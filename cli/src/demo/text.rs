//! Numbers as people read them, and a table.

use std::fmt::Write;

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds as microseconds, to three digits or the whole microsecond.
pub(super) fn micros(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{:.2}", ns as f64 / 1e3),
        10_000..100_000 => format!("{:.1}", ns as f64 / 1e3),
        _ => grouped((ns + 500) / 1_000),
    }
}

/// Nanoseconds as milliseconds.
pub(super) fn millis(ns: u64) -> String {
    match ns {
        0..10_000_000 => format!("{:.2}", ns as f64 / 1e6),
        10_000_000..100_000_000 => format!("{:.1}", ns as f64 / 1e6),
        _ => grouped((ns + 500_000) / 1_000_000),
    }
}

/// Nanoseconds as seconds.
pub(super) fn seconds(ns: u64) -> String {
    format!("{:.2}", ns as f64 / 1e9)
}

/// `1 core`, `2 cores`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `a, b, c`.
pub(super) fn listed<T: ToString>(things: &[T]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Columns set right under their headings, the first set left.
pub(super) struct Table {
    /// Upper headings: what is said, and over how many columns. Together they cover all columns.
    pub(super) groups: Vec<(&'static str, usize)>,
    pub(super) headings: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

const GAP: usize = 2;

impl Table {
    /// The table, its headings between the two strings of `style`.
    pub(super) fn render(&self, style: (&str, &str)) -> String {
        let widths = self.widths();
        let (begin, end) = style;
        let mut text = format!("{begin}{}{end}\n", self.upper(&widths));
        let _ = writeln!(text, "{begin}{}{end}", set(&self.headings, &widths));
        for row in &self.rows {
            let _ = writeln!(text, "{}", set(row, &widths));
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.headings.iter().map(|cell| width(cell)).collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width(cell));
            }
        }
        let mut rest = widths.as_mut_slice();
        for &(heading, columns) in &self.groups {
            let (group, others) = rest.split_at_mut(columns.min(rest.len()));
            let lacking = width(heading).saturating_sub(span(group));
            if let Some(first) = group.first_mut() {
                *first += lacking;
            }
            rest = others;
        }
        widths
    }

    /// The upper headings, each in the middle of a rule over its columns.
    fn upper(&self, widths: &[usize]) -> String {
        let mut rest = widths;
        let mut cells = Vec::new();
        for &(heading, columns) in &self.groups {
            let (group, others) = rest.split_at(columns.min(rest.len()));
            let span = span(group);
            cells.push(match (heading, columns) {
                ("", _) => " ".repeat(span),
                (_, 1) => format!("{heading:>span$}"),
                _ if span < width(heading) + 4 => format!("{heading:^span$}"),
                _ => format!("{:─^span$}", format!(" {heading} ")),
            });
            rest = others;
        }
        cells.join(&" ".repeat(GAP)).trim_end().to_owned()
    }
}

/// One line of cells.
fn set(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let _ = match at {
            0 => write!(line, "{cell:<width$}"),
            _ => write!(line, "{:GAP$}{cell:>width$}", ""),
        };
    }
    line.trim_end().to_owned()
}

/// Of neighbouring columns with their gaps.
fn span(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (65_536, "65,536"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn times_have_three_digits_or_whole_units() {
        assert_eq!(
            [5, 7_123, 19_440, 131_499, 1_210_000].map(micros),
            ["0.01", "7.12", "19.4", "131", "1,210"]
        );
        assert_eq!([420_000, 12_340_000, 1_500_000_000].map(millis), ["0.42", "12.3", "1,500"]);
    }

    #[test]
    fn columns_line_up_under_their_headings() {
        let strings = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect();
        let table = Table {
            groups: vec![("", 1), ("time, µs", 2), ("lost", 1)],
            headings: strings(&["", "p50", "max", "by"]),
            rows: vec![
                strings(&["shmbus", "7.1", "1,210", "0"]),
                strings(&["tcp", "30", "9", "4"]),
            ],
        };
        assert_eq!(
            table.render(("", "")),
            "         time, µs   lost\n        p50    max    by\nshmbus  7.1  1,210     0\ntcp      30      9     4\n"
        );
    }
}
