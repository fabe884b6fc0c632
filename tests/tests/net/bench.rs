//! Does `vswitch bench` measure, account for every frame, and leave nothing behind, however it ends?

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use vswitch_tests::{
    hosts::{signal, until},
    require,
    require::NAMESPACES,
    vswitch::{binary, unique_name},
};

const TINY: [&str; 6] = ["bench", "--quick", "--seconds", "0.01", "--runs", "1"];
/// How long cleaning up may take after an interruption.
const CLEAN: Duration = Duration::from_secs(15);

fn bench(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().expect("start vswitch")
}

/// What a bench of that process has made: namespaces and pinned switches.
fn made_by(pid: u32) -> Vec<String> {
    let ours = format!("vsb-{pid}-");
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let versions = names("/sys/fs/bpf/vswitch");
    let pins = versions.iter().flat_map(|version| names(&format!("/sys/fs/bpf/vswitch/{version}")));
    names("/run/netns").into_iter().chain(pins).filter(|name| name.starts_with(&ours)).collect()
}

/// Sent = received + dropped for a reason; each receiver of a flooded frame counts.
fn assert_accounted(row: &Value) {
    let copies = if row["scenario"] == "flood" { row["point"].as_u64().unwrap() } else { 1 };
    let dropped: u64 = row["drops"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let (sent, received) = (row["sent"].as_u64().unwrap(), row["received"].as_u64().unwrap());
    assert_eq!(sent * copies, received + dropped, "{row}");
    if row["scenario"] == "private" {
        assert_eq!((received, dropped), (0, sent), "{row}");
    }
}

#[test]
fn the_scenarios_have_names() {
    let listed = bench(&["-j", "bench", "--list"]);
    assert!(listed.status.success());
    let rows: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let names: BTreeSet<_> = rows.as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
    for name in [
        "small-frames",
        "nic",
        "uplink",
        "frame-size",
        "tcp",
        "uplink-tcp",
        "udp",
        "latency",
        "flood",
        "learning",
        "addresses",
        "ports",
        "hairpin",
        "vepa",
        "private",
    ] {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
}

#[test]
fn unknown_names_are_refused() {
    for wrong in [["--scenario", "nonsense"], ["--against", "nonsense"]] {
        let output = bench(&[&["bench"], wrong.as_slice()].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("nonsense") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_short_bench_accounts_for_every_frame_and_leaves_nothing() {
    require!(NAMESPACES);
    let page = format!("/tmp/{}.html", unique_name());
    let scenarios = "small-frames,nic,tcp,udp,latency,flood,learning,hairpin,vepa,private";
    let mut command = Command::new(binary());
    command.arg("-j").args(TINY).args(["--scenario", scenarios, "--report", &page]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start vswitch");
    let pid = child.id();
    let output = child.wait_with_output().expect("wait for vswitch");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(made_by(pid), Vec::<String>::new());

    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = reports[0]["rows"].as_array().unwrap();
    for scenario in scenarios.split(',') {
        assert!(rows.iter().any(|row| row["scenario"] == scenario), "{scenario} is missing");
    }
    for row in rows {
        assert_eq!(row["unaccounted"], 0, "{row}");
        assert!(row["median"].as_f64().is_some_and(|value| value > 0.0), "{row}");
        let rounds = row["values"].as_array().map_or(0, Vec::len);
        assert!(rounds > 0, "{row}");
        assert_accounted(row);
        // Few rounds prove nothing, and the report says so.
        let compared = row["to_bridge"].is_number() && row["contestant"] != "bridge";
        assert!(rounds >= 5 || row["inconclusive"] == compared, "{row}");
    }
    let text = fs::read_to_string(&page).unwrap();
    fs::remove_file(&page).unwrap();
    assert!(text.contains("<svg") && text.ends_with("</html>\n"));
    for outside in ["http:", "https:", "src=", "<script"] {
        assert!(!text.contains(outside), "the page refers to {outside}");
    }
}

#[test]
fn an_interrupted_bench_leaves_nothing() {
    require!(NAMESPACES);
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let mut command = Command::new(binary());
        // What runs in the background of a script ignores SIGINT, and so would all that it starts.
        // SAFETY: no handler is installed.
        unsafe { libc::signal(number, libc::SIG_DFL) };
        // Long enough for a loaded machine to interrupt it in time.
        command
            .args(["bench", "--scenario", "nic", "--runs", "200"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("start vswitch");
        until("a switch is up", CLEAN, || made_by(child.id()).len() > 6);
        thread::sleep(Duration::from_millis(50));
        signal(&child, number);
        assert!(!child.wait().expect("wait for vswitch").success());
        until("all is taken away", CLEAN, || made_by(child.id()).is_empty());
    }
}
