use super::*;
use entrepot_runtime::clock::Timestamp;
use futures::future::join_all;

const PEER: &str = "192.0.2.1";

/// A line of a users file. The lowest cost, so that tests are fast.
fn line(name: &str, password: &str) -> String {
    costly(name, password, 4)
}

fn costly(name: &str, password: &str, cost: u32) -> String {
    let hash = bcrypt::hash_with_salt(password, cost, [7; 16]).unwrap().format_for_version(bcrypt::Version::TwoY);
    format!("{name}:{hash}\n")
}

fn passwords(text: &str) -> (Arc<Passwords>, Clock) {
    let clock = Clock::manual(Timestamp(1_000_000));
    let groups = BTreeMap::from([
        ("sre".to_owned(), vec!["alice".to_owned()]),
        ("dev".to_owned(), vec!["alice".to_owned(), "bob".to_owned()]),
    ]);
    (Arc::new(Passwords::new(Users::parse(text).unwrap(), &groups, clock.clone()).unwrap()), clock)
}

async fn send(passwords: &Passwords, name: &str, password: &str) -> Result<Identity, AuthError> {
    let credential = Credential::Password { name: name.to_owned(), password: password.into() };
    passwords.authenticate(&credential, PEER.parse().unwrap()).await.unwrap()
}

fn is_refused(result: &Result<Identity, AuthError>) -> bool {
    matches!(result, Err(AuthError::Refused { .. }))
}

fn is_too_many(result: &Result<Identity, AuthError>) -> bool {
    matches!(result, Err(AuthError::TooMany { .. }))
}

#[tokio::test]
async fn a_user_is_known_by_a_password_and_has_the_groups_of_the_configuration() {
    let (passwords, _) = passwords(&line("alice", "right"));
    let alice = send(&passwords, "alice", "right").await.unwrap();
    assert_eq!((alice.name.as_str(), alice.via, alice.groups), ("alice", Via::File, vec!["dev".into(), "sre".into()]));
    for (name, password) in [("alice", "wrong"), ("alice", ""), ("Alice", "right"), ("", ""), ("bob", "right")] {
        assert!(is_refused(&send(&passwords, name, password).await), "{name}");
    }
    let bearer = Credential::Bearer("token".into());
    assert!(passwords.authenticate(&bearer, PEER.parse().unwrap()).await.is_none());
    passwords.replace_groups(&BTreeMap::new());
    assert!(passwords.identity("alice").unwrap().groups.is_empty() && passwords.identity("bob").is_none());
}

#[tokio::test]
async fn a_password_is_rotated_by_a_second_line() {
    let (passwords, _) = passwords(&(line("robot", "old") + &line("robot", "new")));
    assert!(send(&passwords, "robot", "old").await.is_ok());
    assert!(send(&passwords, "robot", "new").await.is_ok());
    passwords.replace(Users::parse(&line("robot", "new")).unwrap());
    assert!(is_refused(&send(&passwords, "robot", "old").await));
    assert!(send(&passwords, "robot", "new").await.is_ok());
}

#[tokio::test]
async fn a_password_of_cost_12_is_hashed_once_a_minute_however_often_it_is_sent() {
    let (passwords, clock) = passwords(&costly("alice", "right", 12));
    for _ in 0..200 {
        assert!(send(&passwords, "alice", "right").await.is_ok());
    }
    assert_eq!(passwords.hashed(), 1);
    clock.advance(Duration::from_secs(60));
    assert!(send(&passwords, "alice", "right").await.is_ok());
    assert_eq!(passwords.hashed(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_that_send_one_pair_at_the_same_time_hash_it_once() {
    let (passwords, _) = passwords(&costly("alice", "right", 8));
    let results = join_all((0..200).map(|_| send(&passwords, "alice", "right"))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(passwords.hashed(), 1);
}

#[tokio::test]
async fn unknown_and_known_names_take_one_hash_of_the_same_cost() {
    let (passwords, _) = passwords(&(line("alice", "right") + &costly("bob", "other", 5) + &line("carol", "third")));
    assert!(is_refused(&send(&passwords, "alice", "wrong").await));
    assert_eq!(passwords.hashed(), 1);
    assert!(is_refused(&send(&passwords, "nobody", "wrong").await));
    assert_eq!(passwords.hashed(), 2);
    let users = &passwords.file().users;
    assert_eq!(users.candidates("nobody").hashes[0].cost(), users.candidates("alice").hashes[0].cost());
    // Not even the password of the hash that stands for unknown names.
    for password in ["right", "other", "third"] {
        assert!(is_refused(&send(&passwords, "nobody", password).await));
    }
}

#[tokio::test]
async fn a_stale_password_that_clients_repeat_is_hashed_once_and_locks_nobody_out() {
    let (passwords, clock) = passwords(&(line("alice", "right") + &line("bob", "other")));
    for minute in 1..=20 {
        for _ in 0..50 {
            assert!(is_refused(&send(&passwords, "alice", "stale").await));
        }
        assert_eq!(passwords.hashed(), minute);
        clock.advance(Duration::from_secs(60));
    }
    assert!(send(&passwords, "alice", "right").await.is_ok() && send(&passwords, "bob", "other").await.is_ok());
}

#[tokio::test]
async fn the_eleventh_different_password_in_a_minute_is_not_hashed() {
    let (passwords, clock) = passwords(&(line("alice", "right") + &line("bob", "other")));
    assert!(send(&passwords, "alice", "right").await.is_ok());
    for number in 0..10 {
        assert!(is_refused(&send(&passwords, "alice", &format!("guess-{number}")).await));
    }
    let hashed = passwords.hashed();
    let refused = send(&passwords, "alice", "guess-10").await.unwrap_err();
    assert_eq!(refused, AuthError::TooMany { retry_after_seconds: 60 });
    // A wrong pair of before is still wrong, and a right one still right.
    assert!(is_refused(&send(&passwords, "alice", "guess-3").await));
    assert!(send(&passwords, "alice", "right").await.is_ok());
    assert_eq!(passwords.hashed(), hashed);
    assert!(send(&passwords, "bob", "other").await.is_ok());
    let elsewhere = Credential::Password { name: "alice".to_owned(), password: "guess-10".into() };
    let elsewhere = passwords.authenticate(&elsewhere, "192.0.2.2".parse().unwrap()).await.unwrap();
    assert!(is_refused(&elsewhere));
    clock.advance(Duration::from_secs(60));
    assert!(is_refused(&send(&passwords, "alice", "guess-10").await));
}

#[tokio::test]
async fn the_hundred_and_first_wrong_password_of_an_address_is_not_hashed() {
    let (passwords, _) = passwords(&line("alice", "right"));
    for number in 0..100 {
        assert!(is_refused(&send(&passwords, &format!("user-{number}"), "guess").await));
    }
    assert!(is_too_many(&send(&passwords, "another", "guess").await));
    assert_eq!(passwords.hashed(), 100);
}

#[tokio::test]
async fn right_passwords_are_not_counted() {
    let text: String = (0..150).map(|number| line(&format!("user-{number}"), "right")).collect();
    let (passwords, _) = passwords(&text);
    for number in 0..150 {
        assert!(send(&passwords, &format!("user-{number}"), "right").await.is_ok(), "{number}");
    }
}

#[tokio::test]
async fn a_change_of_the_file_is_in_force_at_once() {
    let (passwords, _) = passwords(&line("alice", "old"));
    assert!(send(&passwords, "alice", "old").await.is_ok() && is_refused(&send(&passwords, "alice", "new").await));
    passwords.replace(Users::parse(&line("alice", "new")).unwrap());
    assert!(is_refused(&send(&passwords, "alice", "old").await) && send(&passwords, "alice", "new").await.is_ok());
    passwords.replace(Users::default());
    assert!(is_refused(&send(&passwords, "alice", "new").await));
    assert!(!passwords.contains("alice"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_passwords_at_once_as_many_as_may_wait_are_hashed() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (passwords, _) = passwords(&costly("alice", "right", 10));
    let guesses = (0..200_u32).map(|number| {
        let (passwords, peer) = (&passwords, IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        let credential = Credential::Password { name: "alice".to_owned(), password: number.to_string().into() };
        async move { passwords.authenticate(&credential, peer).await.unwrap() }
    });
    // All are polled before the first one ends: a hash takes longer than that.
    let results = join_all(guesses).await;
    let refused = results.iter().filter(|result| is_refused(result)).count();
    let too_many = results.iter().filter(|result| is_too_many(result)).count();
    assert_eq!(refused + too_many, 200);
    assert_eq!(passwords.hashed(), u64::try_from(refused).unwrap());
    assert!((cores..=2 * cores + 64 + 10).contains(&refused), "{refused}");
    // Those that were refused for the queue have not tried: they are not counted as wrong.
    assert!(send(&passwords, "alice", "right").await.is_ok());
}

#[tokio::test]
async fn a_client_that_goes_away_holds_no_place_and_the_next_one_is_answered() {
    let (passwords, _) = passwords(&line("alice", "right"));
    for _ in 0..300 {
        let sent = send(&passwords, "alice", "right");
        let gone = tokio::time::timeout(Duration::ZERO, sent).await;
        drop(gone);
    }
    assert!(send(&passwords, "alice", "right").await.is_ok());
}

#[tokio::test]
async fn a_long_name_or_password_is_refused_without_a_hash() {
    let (passwords, _) = passwords(&line("alice", "right"));
    assert!(is_refused(&send(&passwords, "alice", &"p".repeat(1025)).await));
    assert!(is_refused(&send(&passwords, &"n".repeat(256), "right").await));
    assert_eq!(passwords.hashed(), 0);
}

#[tokio::test]
async fn no_output_contains_a_password_or_a_hash() {
    let (passwords, _) = passwords(&line("alice", "hunter2"));
    let credential = Credential::Password { name: "alice".to_owned(), password: "hunter3".into() };
    let refused = passwords.authenticate(&credential, PEER.parse().unwrap()).await;
    let told = format!("{passwords:?} {credential:?} {refused:?}");
    assert!(!told.contains("hunter") && !told.contains("$2y$"), "{told}");
}
