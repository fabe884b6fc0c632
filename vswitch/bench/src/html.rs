//! The report as a page: one file without references, bars for each scenario, lines where there are points.

mod chart;

use super::{Report, Row, report::human};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2.5rem 0 .2rem;border-top:1px solid #ddd;padding-top:1rem}\
p.about{margin:0 0 .6rem;color:#555}table{border-collapse:collapse;font-size:13px;margin:.6rem 0}\
th,td{text-align:right;padding:.15rem .7rem .15rem 0;border-bottom:1px solid #eee;white-space:nowrap}\
th:first-child,td:first-child,td.text,th.text{text-align:left}td.text:last-child{white-space:normal}\
.win{color:#0a6b2d}.lose{color:#b00020;font-weight:600}svg{display:block;max-width:100%;height:auto}\
svg text{font:12px system-ui,sans-serif;fill:#1a1a1a}ul{font-size:13px;color:#444}.lost{color:#b00020}";

/// The page.
pub fn page(report: &Report) -> String {
    let machine = &report.machine;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>vswitch bench</title>\
<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
<h1>vswitch bench</h1>\n<p>{} &middot; {} CPUs &middot; Linux {} &middot; vswitch {} &middot; BPF JIT {} &middot; \
load {} at start &middot; {} runs of {} s &middot; {:.0} s in all</p>\n",
        escaped(&machine.cpu),
        machine.cpus,
        escaped(&machine.kernel),
        escaped(&machine.vswitch),
        if machine.jit { "on" } else { "off" },
        escaped(&machine.load),
        report.runs,
        report.run_seconds,
        report.seconds
    );
    page.push_str(&summary(report));
    let mut rest = report.rows.as_slice();
    while let Some(first) = rest.first() {
        let same = |row: &&Row| row.scenario == first.scenario;
        let (rows, others) = rest.split_at(rest.iter().take_while(same).count());
        page.push_str(&section(rows));
        rest = others;
    }
    page.push_str("<h2>Terms</h2><ul>\n");
    machine.terms.iter().for_each(|term| page.push_str(&format!("<li>{}</li>\n", escaped(term))));
    page.push_str("</ul></body></html>\n");
    page
}

/// Where vswitch loses, and where it wins: the better of its datapaths against the bridge.
fn summary(report: &Report) -> String {
    let mut best: Vec<&Row> = Vec::new();
    let ours = |row: &&Row| row.contestant.starts_with("vswitch") && row.to_bridge.is_some();
    // What all hold to the last address needs no picture.
    for row in report.rows.iter().filter(ours).filter(|row| row.metric != HELD) {
        match best.iter_mut().find(|other| other.label() == row.label()) {
            Some(other) if other.to_bridge < row.to_bridge => *other = row,
            Some(_) => {}
            None => best.push(row),
        }
    }
    best.sort_by(|a, b| a.to_bridge.unwrap_or(1.0).total_cmp(&b.to_bridge.unwrap_or(1.0)));
    let slower: Vec<_> = best
        .iter()
        .filter(|row| row.to_bridge.is_some_and(|ratio| ratio < 1.0))
        .map(|row| format!("{} {}", escaped(&row.label()), row.against_bridge().unwrap_or_default()))
        .collect();
    let mut text = if best.is_empty() {
        String::new()
    } else {
        format!(
            "<p><span class=\"lose\">Slower than the Linux bridge:</span> {}.</p>\n{}<p class=\"about\">The better of \
vswitch's datapaths as a multiple of the Linux bridge in the same rounds; the black line is where the true ratio lies, \
with 95&nbsp;%. With a question mark, and pale: the line is wider than &plusmn;5&nbsp;%, and another bench may say otherwise.</p>\n",
            if slower.is_empty() { "nowhere".to_owned() } else { slower.join(", ") },
            chart::ratios(&best)
        )
    };
    for lost in report.unaccounted() {
        text.push_str(&format!("<p class=\"lost\">Unaccounted for: {}</p>\n", escaped(&lost)));
    }
    text
}

/// A metric that is a number of addresses, not a speed.
const HELD: &str = "held";

/// One scenario.
fn section(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let mut text = format!(
        "<h2 id=\"{0}\">{0}</h2>\n<p class=\"about\">{1}</p>\n",
        first.scenario,
        escaped(first.about)
    );
    let mut metrics: Vec<&str> = Vec::new();
    for row in rows {
        if !metrics.contains(&row.metric) {
            metrics.push(row.metric);
        }
    }
    for metric in metrics {
        let of_metric: Vec<&Row> = rows.iter().filter(|row| row.metric == metric).collect();
        let mut points: Vec<Option<u32>> = of_metric.iter().map(|row| row.point).collect();
        points.dedup();
        if metric != HELD {
            text.push_str(&if points.len() > 2 { chart::lines(&of_metric) } else { chart::bars(&of_metric) });
        }
    }
    text.push_str(&table(rows));
    text
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "<table><tr><th></th><th class=\"text\">contestant</th><th>median</th><th>min</th><th>max</th><th>bridge</th>\
<th>best other</th><th>floor</th><th>iperf3</th><th>lost</th><th class=\"text\">what limits it</th></tr>\n",
    );
    let mut last = String::new();
    for row in rows {
        let label = row.label();
        let class = match row.to_bridge {
            Some(ratio) if row.contestant.starts_with("vswitch") && ratio < 1.0 => "lose",
            Some(ratio) if row.contestant.starts_with("vswitch") && ratio > 1.0 => "win",
            _ => "",
        };
        let dropped: u64 = row.drops.values().sum();
        let reasons: Vec<_> = row.drops.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
        text.push_str(&format!(
            "<tr><td>{}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{}</td>\
<td>{}</td><td>{}</td><td>{}</td><td title=\"{}\">{}</td><td class=\"text\">{}</td></tr>\n",
            if label == last { String::new() } else { escaped(&label) },
            row.contestant,
            human(row.median, row.unit),
            human(row.min, row.unit),
            human(row.max, row.unit),
            row.against_bridge().unwrap_or_default(),
            row.to_best.map(|ratio| format!("{ratio:.2}x")).unwrap_or_default(),
            row.of_floor.map(|part| format!("{:.0} %", part * 100.0)).unwrap_or_default(),
            row.iperf3.map(|value| human(value, row.unit)).unwrap_or_default(),
            escaped(&reasons.join("; ")),
            if dropped > 0 { format!("{:.2} %", 100.0 * dropped as f64 / (dropped + row.received) as f64) } else { "0".into() },
            escaped(row.limit.as_deref().unwrap_or_default())
        ));
        last = label;
    }
    text.push_str("</table>\n");
    text
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_stays_text() {
        assert_eq!(escaped("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
