use super::*;
use entrepot_runtime::clock::Timestamp;
use serde_json::Value;
use std::io;
use std::sync::Arc;

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn audit(settings: Settings) -> (Audit, Output, Clock) {
    let (output, clock) = (Output::default(), Clock::manual(Timestamp(1_795_000_000_123)));
    (Audit::new("images-0".into(), settings, clock.clone(), Box::new(output.clone())), output, clock)
}

fn denied(user: &str) -> Line {
    let actor = Actor { name: user.to_owned(), via: None, groups: Vec::new(), token: None };
    Line { actor: Some(actor), reason: Some("wrong password".into()), ..Line::new(Event::Login, Outcome::Denied) }
}

#[test]
fn a_line_says_when_where_who_and_what() {
    let (audit, output, _) = audit(Settings::default());
    let tags = vec![MovedTag { tag: "v1".into(), previous_digest: Some("sha256:0".into()) }];
    let actor = Actor { name: "alice".into(), via: Some("file".into()), groups: vec!["sre".into()], token: None };
    audit.write(Line {
        status: Some(201),
        actor: Some(actor),
        repository: Some("a/b".into()),
        tags,
        ..Line::new(Event::Push, Outcome::Ok)
    });
    let expected = serde_json::json!({
        "log": "audit", "time": "2026-11-18T12:26:40.123Z", "node": "images-0", "event": "push", "outcome": "ok",
        "status": 201, "actor": {"name": "alice", "via": "file", "groups": ["sre"]}, "repository": "a/b",
        "tags": [{"tag": "v1", "previousDigest": "sha256:0"}],
    });
    let lines = output.lines();
    let mut line = lines[0].clone();
    line["time"] = expected["time"].clone();
    assert_eq!((line, lines.len()), (expected, 1));
    assert!(lines[0]["time"].as_str().unwrap().ends_with(".123Z"), "{}", lines[0]);
}

#[test]
fn the_same_refusal_is_logged_once_a_minute_with_its_count() {
    let (audit, output, clock) = audit(Settings::default());
    for _ in 0..5 {
        audit.write(denied("alice"));
    }
    audit.write(denied("bob"));
    assert_eq!(output.lines().len(), 2);
    clock.advance(REPEATED);
    audit.write(denied("alice"));
    let lines = output.lines();
    assert_eq!((lines.len(), &lines[0]["repeated"]), (1, &Value::from(4)));
}

#[test]
fn a_flood_of_different_refusals_takes_no_memory_and_hides_none() {
    let (audit, output, _) = audit(Settings::default());
    for number in 0..REMEMBERED * 3 {
        audit.write(denied(&format!("user-{number}")));
    }
    assert_eq!(output.lines().len(), REMEMBERED * 3);
    assert!(audit.refusals.lock().len() <= REMEMBERED);
}

#[test]
fn the_settings_select_events() {
    let events = [Event::Push, Event::PullManifest, Event::PullBlob];
    for (settings, expected) in [
        (Settings::default(), [true, false, false]),
        (Settings { pulls: AuditedPulls::Manifests, writes: true }, [true, true, false]),
        (Settings { pulls: AuditedPulls::All, writes: false }, [false, true, true]),
    ] {
        let (audit, output, _) = audit(Settings::default());
        audit.set(settings);
        assert_eq!(events.map(|event| audit.logs(event)), expected);
        events.into_iter().for_each(|event| audit.write(Line::new(event, Outcome::Ok)));
        assert_eq!(output.lines().len(), expected.into_iter().filter(|logged| *logged).count());
    }
}
