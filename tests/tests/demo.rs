//! `tine demo --once`, as a newcomer runs it.

use std::time::Duration;

use tine_tests::{
    command::{run_within, tine},
    keep::TestDirectory,
};

/// How long the demo may take on a busy machine; on a free one it takes about 15 s.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn the_demo_ends_with_status_zero_and_a_report() {
    let folder = TestDirectory::new("demo");
    let mut command = tine(folder.path());
    command.args(["demo", "--once", "--json", "--seconds", "2", "--agents", "12"]);
    let ran = run_within(command.env("TMPDIR", folder.path()), LIMIT).expect(0);
    let report = ran.json();
    assert_eq!(report["passed"], true, "{report:#}");
    let outcomes = report["outcomes"].as_array().expect("outcomes");
    assert_eq!(outcomes.len(), 4, "main and three forks");
    for outcome in outcomes {
        assert_eq!(outcome["balanced"], true, "{outcome:#}");
        assert!(outcome["sales"].as_u64() > Some(0), "nothing was sold: {outcome:#}");
        assert!(outcome["calls_per_second"].as_f64() > Some(100.0), "{outcome:#}");
    }
    let rules: std::collections::BTreeSet<&str> = outcomes.iter().filter_map(|one| one["rules"].as_str()).collect();
    assert_eq!(rules.len(), 4, "every fork has its own rules");
    assert!(outcomes[1]["fees"] == 0 && outcomes[0]["fees"].as_u64() > Some(0), "the rules have no effect");
    assert!(outcomes[1]["fork_time_us"].as_u64() > Some(0));
    let crash = &report["crash"];
    assert!(crash["confirmed"].as_u64() > Some(100), "{crash:#}");
    assert_eq!((&crash["missing"], &crash["foreign"]), (&0.into(), &0.into()), "{crash:#}");
    // Progress is visible throughout, on standard error when JSON is asked for.
    let acts = ["Starting a server", "trade on main", "Forking main", "kill -9", "Every check passed"];
    for act in acts {
        assert!(ran.stderr.contains(act), "no word of `{act}`:\n{}", ran.stderr);
    }
    let left = std::fs::read_dir(folder.path()).expect("listed").filter_map(Result::ok);
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("tine-demo-")).collect();
    assert!(left.is_empty(), "the demo left {left:?}");
}

#[test]
fn the_demo_stays_up_and_ends_in_order_on_interrupt() {
    use std::io::{BufRead, BufReader};
    let folder = TestDirectory::new("demo-up");
    let mut command = tine(folder.path());
    command.args(["demo", "--seconds", "1", "--agents", "4"]).env("TMPDIR", folder.path());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let page = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, address) = line.split_once("The market stays open: ")?;
        Some(address.trim().trim_end_matches("\x1b[0m").to_owned())
    });
    let page = page.expect("it names the page's address");
    let html = ureq::get(&page).call().expect("the page is served").body_mut().read_to_string().expect("text");
    assert!(html.contains("app.js"), "{html}");
    // SAFETY: kill(2) takes plain numbers; the child has not been awaited, so the id is its.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert!(ureq::get(&page).call().is_err(), "the server outlived the demo");
}
