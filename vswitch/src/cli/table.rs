//! How are rows shown to people? Aligned columns, and numbers short enough to read.

/// How a column's cells stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells under a header; what is said of a row may follow it, indented.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Align>,
    header: Option<Vec<String>>,
    rows: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    Cells(Vec<String>),
    Remark(String),
}

impl Table {
    /// A table with a header.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        Self {
            columns: columns.iter().map(|(_, align)| *align).collect(),
            header: Some(columns.iter().map(|(name, _)| (*name).to_owned()).collect()),
            rows: Vec::new(),
        }
    }

    /// `columns` columns of words, without a header.
    pub fn plain(columns: usize) -> Self {
        Self { columns: vec![Align::Left; columns], header: None, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(Line::Cells(cells.into()));
    }

    /// Adds a line about the last row.
    pub(super) fn remark(&mut self, text: String) {
        self.rows.push(Line::Remark(text));
    }

    /// The text. A table without rows is empty, header included.
    pub fn render(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let lines = || self.header.iter().chain(self.rows.iter().filter_map(Line::cells));
        let mut widths = vec![0; self.columns.len()];
        for cells in lines() {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if let Some(cells) = &self.header {
            self.push(&mut text, cells, &widths);
        }
        for row in &self.rows {
            match row {
                Line::Cells(cells) => self.push(&mut text, cells, &widths),
                Line::Remark(remark) => {
                    text.push_str("    ");
                    text.push_str(remark);
                    text.push('\n');
                }
            }
        }
        text
    }

    fn push(&self, text: &mut String, cells: &[String], widths: &[usize]) {
        let mut line = String::new();
        for ((cell, &width), align) in cells.iter().zip(widths).zip(&self.columns) {
            if width == 0 {
                continue;
            }
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                Align::Right => line.push_str(&format!("{cell:>width$}  ")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

impl Line {
    fn cells(&self) -> Option<&Vec<String>> {
        match self {
            Self::Cells(cells) => Some(cells),
            Self::Remark(_) => None,
        }
    }
}

/// A number in five characters at most, as `ip -h` does: `99999`, `100K`, `1.2M`, `37G`.
pub(super) fn short(number: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if number < 100_000 {
        return number.to_string();
    }
    let (mut scaled, mut unit) = (number, 0);
    let mut rest = 0;
    while scaled >= 1000 {
        rest = scaled % 1000 / 100;
        scaled /= 1000;
        unit += 1;
    }
    let name = UNITS.get(unit - 1).copied().unwrap_or_default();
    if scaled < 10 { format!("{scaled}.{rest}{name}") } else { format!("{scaled}{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("FLAGS", Align::Left)]);
        table.row(["a".into(), "7".into(), String::new()]);
        table.row(["longer".into(), "1234".into(), "x".into()]);
        table.remark("about it".into());
        assert_eq!(table.render(), "NAME       N  FLAGS\na          7\nlonger  1234  x\n    about it\n");
        assert_eq!(Table::new(&[("NAME", Align::Left)]).render(), "");
    }

    #[test]
    fn a_plain_table_leaves_empty_columns_out() {
        let mut table = Table::plain(3);
        table.row(["a".into(), String::new(), "b".into()]);
        table.row(["aa".into(), String::new(), "b".into()]);
        assert_eq!(table.render(), "a   b\naa  b\n");
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100K"),
            (999_999, "999K"),
            (1_250_000, "1.2M"),
            (37_000_000_000, "37G"),
            (u64::MAX, "18E"),
        ];
        for (number, text) in cases {
            assert_eq!(short(number), text);
        }
    }
}
