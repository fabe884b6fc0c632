//! How is a whole matrix of who hears whom written? As the documents do: a line for each sender, a column for each address.

use crate::frame::{BROADCAST, Frame, MULTICAST, to};

/// A row for each cell, for `Fabric::check`. The first column sends; the head names the addresses, where `broadcast`
/// and `multicast` are themselves and `group` is both; `-` is not tried.
pub fn rows(table: &'static str) -> Vec<(&'static str, Frame, &'static str)> {
    let mut lines = table.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let head = lines.next().expect("a table has a head");
    let frames = |column: &str| match column {
        "broadcast" => vec![to(BROADCAST)],
        "multicast" => vec![to(MULTICAST)],
        "group" => vec![to(BROADCAST), to(MULTICAST)],
        name => vec![to(name)],
    };
    let cells = |line: Vec<&'static str>| {
        assert_eq!(line.len(), head.len(), "columns of {line:?}");
        let row = head.iter().zip(line.clone()).skip(1).filter(|(_, cell)| *cell != "-");
        let row = row.flat_map(|(column, cell)| frames(column).into_iter().map(move |frame| (frame, cell)));
        row.map(|(frame, cell)| (line[0], frame, cell)).collect::<Vec<_>>()
    };
    lines.flat_map(cells).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_becomes_a_row_and_a_dash_does_not() {
        let table = "from | a | b | broadcast
                     a    | - | b | b host
                     b    | a | - | nobody";
        let expected = [
            ("a", to("b"), "b"),
            ("a", to(BROADCAST), "b host"),
            ("b", to("a"), "a"),
            ("b", to(BROADCAST), "nobody"),
        ];
        assert_eq!(rows(table), expected);
    }
}
