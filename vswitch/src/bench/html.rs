//! The report as a page: one file without references, bars for each scenario, lines where there are points.

mod chart;

use super::{Report, Row, report::human};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2.5rem 0 .2rem;border-top:1px solid #ddd;padding-top:1rem}\
p.about{margin:0 0 .6rem;color:#555}table{border-collapse:collapse;font-size:13px;margin:.6rem 0}\
th,td{text-align:right;padding:.15rem .7rem .15rem 0;border-bottom:1px solid #eee;white-space:nowrap}\
th:first-child,td:first-child,td.text,th.text{text-align:left}td.text{white-space:normal}\
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
    let mut best: Vec<(String, &Row)> = Vec::new();
    for row in
        report.rows.iter().filter(|row| row.contestant.starts_with("vswitch") && row.to_bridge.is_some())
    {
        match best.iter_mut().find(|(label, _)| *label == row.label()) {
            Some((_, old)) if old.to_bridge < row.to_bridge => *old = row,
            Some(_) => {}
            None => best.push((row.label(), row)),
        }
    }
    best.sort_by(|(_, a), (_, b)| a.to_bridge.unwrap_or(1.0).total_cmp(&b.to_bridge.unwrap_or(1.0)));
    let list = |wanted: &dyn Fn(f64) -> bool| {
        let chosen = best.iter().filter(|(_, row)| row.to_bridge.is_some_and(wanted));
        let texts: Vec<_> = chosen
            .map(|(label, row)| {
                let ratio = row.against_bridge().unwrap_or_default();
                format!("{} {} ({})", escaped(label), ratio, row.contestant)
            })
            .collect();
        if texts.is_empty() { "nowhere".to_owned() } else { texts.join(", ") }
    };
    let mut text = format!(
        "<p><span class=\"lose\">Slower than the Linux bridge:</span> {}.<br>\n<span class=\"win\">Faster:</span> {}.<br>\n\
Within 3&nbsp;%: {}.</p>\n",
        list(&|ratio| ratio < 0.97),
        list(&|ratio| ratio > 1.03),
        list(&|ratio| (0.97..=1.03).contains(&ratio))
    );
    for lost in report.unaccounted() {
        text.push_str(&format!("<p class=\"lost\">Unaccounted for: {}</p>\n", escaped(&lost)));
    }
    text
}

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
        // What all hold to the last address needs no picture.
        if metric != "held" {
            text.push_str(&if points.len() > 2 { chart::lines(&of_metric) } else { chart::bars(&of_metric) });
        }
    }
    text.push_str(&table(rows));
    text
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "<table><tr><th></th><th class=\"text\">contestant</th><th>median</th><th>min</th><th>max</th><th>bridge</th>\
<th>floor</th><th>lost</th><th class=\"text\">what limits it</th></tr>\n",
    );
    for row in rows {
        let class = match row.to_bridge {
            Some(ratio) if row.contestant.starts_with("vswitch") && ratio < 0.97 => "lose",
            Some(ratio) if row.contestant.starts_with("vswitch") && ratio > 1.03 => "win",
            _ => "",
        };
        let dropped: u64 = row.drops.values().sum();
        let reasons: Vec<_> = row.drops.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
        text.push_str(&format!(
            "<tr><td>{}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{}</td>\
<td>{}</td><td title=\"{}\">{}</td><td class=\"text\">{}</td></tr>\n",
            escaped(&row.label()),
            row.contestant,
            human(row.median, row.unit),
            human(row.min, row.unit),
            human(row.max, row.unit),
            row.against_bridge().unwrap_or_default(),
            row.of_floor.map(|part| format!("{:.0} %", part * 100.0)).unwrap_or_default(),
            escaped(&reasons.join("; ")),
            if dropped > 0 { format!("{:.2} %", 100.0 * dropped as f64 / (dropped + row.received) as f64) } else { "0".into() },
            escaped(row.limit.as_deref().unwrap_or_default())
        ));
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
