//! What do the figures look like? SVG: bars with their spread, ratios to the bridge, lines over the points of a scenario.

use std::fmt::Write as _;

use super::escaped;
use crate::report::{Row, human};

const WIDTH: f64 = 760.0;
/// Left of the bars: the names.
const NAMES: f64 = 220.0;
/// Right of the bars: the values.
const VALUES: f64 = 170.0;
const BAR: f64 = 22.0;
/// Between the bars of one point and those of the next.
const GAP: f64 = 10.0;

const HEIGHT: f64 = 300.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// Told apart also by those who see no red or green.
fn colour(contestant: &str) -> &'static str {
    match contestant {
        "vswitch-tc" => "#0072b2",
        "vswitch-xdp" => "#56b4e9",
        "bridge" => "#d55e00",
        "macvlan" => "#cc79a7",
        "ovs" => "#e69f00",
        "floor-tc-peer" => "#7a7a7a",
        "floor-xdp" => "#555555",
        "floor-tc" => "#9a9a9a",
        _ => "#c4c4c4",
    }
}

/// Ratios to the bridge under each other, with what they may be; the bridge is the vertical line at 1.
pub(super) fn ratios(rows: &[&Row]) -> String {
    let most = rows.iter().filter_map(|row| row.to_bridge_high.or(row.to_bridge)).fold(1.0, f64::max);
    let x = |ratio: f64| NAMES + ratio * (WIDTH - NAMES - VALUES) / most;
    let height = BAR * rows.len() as f64 + 4.0;
    let mut svg = open(height, "vswitch as a multiple of the Linux bridge");
    for (number, row) in rows.iter().enumerate() {
        let (ratio, y) = (row.to_bridge.unwrap_or(1.0), BAR * number as f64 + 2.0);
        let (low, high) = (row.to_bridge_low.unwrap_or(ratio), row.to_bridge_high.unwrap_or(ratio));
        let (middle, fill) =
            (y + (BAR - 5.0) / 2.0, if ratio < 1.0 { "#b00020" } else { colour(row.contestant) });
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
<rect x=\"{NAMES}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{fill}\" opacity=\"{}\"/>\
<path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#000\" stroke-width=\"1.5\"/>\
<text x=\"{:.1}\" y=\"{:.1}\">{ratio:.2}x{} {}</text>",
            NAMES - 8.0,
            middle + 4.0,
            escaped(&row.label()),
            x(ratio) - NAMES,
            BAR - 5.0,
            if row.inconclusive { "0.45" } else { "1" },
            x(low),
            x(high),
            x(high.max(1.0)) + 8.0,
            middle + 4.0,
            if row.inconclusive { "?" } else { "" },
            row.contestant
        );
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{0:.1} 0V{height}\" stroke=\"#d55e00\" stroke-width=\"1.5\"/></svg>",
        x(1.0)
    );
    svg
}

/// The rows of one metric, under each other; a line from the least to the most.
pub(super) fn bars(rows: &[&Row]) -> String {
    // The generator alone would make all others look alike.
    let shown: Vec<_> = rows.iter().filter(|row| row.contestant != "generator").collect();
    let most = shown.iter().map(|row| row.max).fold(0.0, f64::max);
    let scale = if most > 0.0 { (WIDTH - NAMES - VALUES) / most } else { 0.0 };
    // Points are set apart.
    let gaps = |number: usize| {
        let points = shown.iter().take(number + 1).map(|row| row.point).collect::<Vec<_>>();
        points.windows(2).filter(|pair| matches!(pair, [one, other] if one != other)).count() as f64 * GAP
    };
    let height = BAR * shown.len() as f64 + gaps(shown.len()) + 4.0;
    let mut svg = open(height, &format!("{} of each contestant", rows.first().map_or("", |row| row.unit)));
    for (number, row) in shown.iter().enumerate() {
        let y = BAR * number as f64 + gaps(number) + 2.0;
        let middle = y + (BAR - 5.0) / 2.0;
        let name = match (row.point, row.metric) {
            (Some(point), _) => format!("{} ({}: {point})", row.contestant, row.axis),
            (None, "") => row.contestant.to_owned(),
            (None, metric) => format!("{} {metric}", row.contestant),
        };
        let (x, least, most) = (NAMES + row.median * scale, NAMES + row.min * scale, NAMES + row.max * scale);
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
<rect x=\"{NAMES}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"><title>{} runs</title></rect>\
<path d=\"M{least:.1} {middle:.1}H{most:.1}M{least:.1} {:.1}v6M{most:.1} {:.1}v6\" stroke=\"#000\" fill=\"none\"/>\
<text x=\"{:.1}\" y=\"{}\">{}{}</text>",
            NAMES - 8.0,
            middle + 4.0,
            escaped(&name),
            y,
            (x - NAMES).max(0.5),
            BAR - 5.0,
            colour(row.contestant),
            row.values.len(),
            middle - 3.0,
            middle - 3.0,
            most.max(x) + 8.0,
            middle + 4.0,
            human(row.median, row.unit),
            row.to_bridge.map(|ratio| format!(" ({ratio:.2}x)")).unwrap_or_default()
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A line for each contestant over the points, which are evenly spaced: they grow by factors.
pub(super) fn lines(rows: &[&Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let mut points: Vec<u32> = rows.iter().filter_map(|row| row.point).collect();
    points.dedup();
    let most = rows.iter().map(|row| row.max).fold(0.0, f64::max) * 1.05;
    let step = (WIDTH - LEFT - RIGHT) / points.len().saturating_sub(1).max(1) as f64;
    let x = |point: u32| LEFT + step * points.iter().position(|other| *other == point).unwrap_or(0) as f64;
    let y =
        |value: f64| HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * if most > 0.0 { value / most } else { 0.0 };
    let mut svg = open(HEIGHT, &format!("{} by {}", first.unit, first.axis));
    for quarter in 0..=4 {
        let value = most * f64::from(quarter) / 4.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#e4e4e4\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
            y(value),
            WIDTH - RIGHT,
            LEFT - 8.0,
            y(value) + 4.0,
            human(value, first.unit)
        );
    }
    for point in &points {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{point}</text>",
            x(*point),
            HEIGHT - BOTTOM + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        first.axis
    );
    let mut contestants: Vec<&str> = Vec::new();
    for row in rows {
        if !contestants.contains(&row.contestant) {
            contestants.push(row.contestant);
        }
    }
    let mut labels: Vec<(f64, &str)> = Vec::new();
    for contestant in contestants {
        let mut path = String::new();
        let mut end = 0.0;
        for row in rows.iter().filter(|row| row.contestant == contestant) {
            let (x, y_median) = (x(row.point.unwrap_or(0)), y(row.median));
            let _ = writeln!(path, "{}{x:.1} {y_median:.1}", if path.is_empty() { 'M' } else { 'L' });
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {:.1}V{:.1}\" stroke=\"{2}\"/><circle cx=\"{x:.1}\" cy=\"{y_median:.1}\" r=\"3.5\" fill=\"{2}\">\
<title>{contestant}: {3}</title></circle>",
                y(row.min),
                y(row.max),
                colour(contestant),
                human(row.median, row.unit)
            );
            end = y_median;
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" stroke=\"{}\" stroke-width=\"2\" fill=\"none\"/>",
            colour(contestant)
        );
        labels.push((end, contestant));
    }
    // Names at the lines' ends, pushed apart where they would lie on each other.
    labels.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut last = f64::NEG_INFINITY;
    for (wanted, contestant) in labels {
        let at = wanted.max(last + 14.0);
        last = at;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" style=\"fill:{}\">{contestant}</text>",
            WIDTH - RIGHT + 10.0,
            at + 4.0,
            colour(contestant)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(height: f64, what: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{}\">\n",
        escaped(what)
    )
}
