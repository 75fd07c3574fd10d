use super::*;
use crate::{Identity, Via};
use entrepot_config::Rule;
use proptest::prelude::*;

fn rule(who: &str, may: Action, pattern: &str) -> Rule {
    Rule {
        who: vec![Subject::parse(who).unwrap()],
        may: vec![may],
        repositories: vec![NamePattern::parse(pattern).unwrap()],
        claims: BTreeMap::new(),
    }
}

fn compile(rules: Vec<Rule>) -> Rules {
    Rules::compile(&Auth { rules, ..Auth::default() })
}

fn known(via: Via, name: &str) -> Identity {
    Identity { name: name.into(), groups: Vec::new(), via, claims: BTreeMap::new() }
}

fn caller(identity: Identity) -> Caller {
    Caller::Known(Arc::new(identity))
}

fn user(name: &str) -> Caller {
    caller(known(Via::File, name))
}

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

#[test]
fn delete_includes_push_and_push_includes_pull() {
    for (granted, allowed) in [(Action::Pull, 1), (Action::Push, 2), (Action::Delete, 3)] {
        let rules = compile(vec![rule("user:alice", granted, "a/**")]);
        let actions = [Action::Pull, Action::Push, Action::Delete];
        let count =
            actions.iter().filter(|action| rules.allows(&user("alice"), **action, &repository("a/b")).is_some());
        assert_eq!(count.count(), allowed, "{granted:?}");
    }
    let mut both = rule("user:alice", Action::Delete, "a/**");
    both.may = vec![Action::Pull, Action::Push];
    let rules = compile(vec![both]);
    assert!(rules.allows(&user("alice"), Action::Push, &repository("a")).is_some());
    assert!(rules.allows(&user("alice"), Action::Delete, &repository("a")).is_none());
}

#[test]
fn the_audit_log_gets_the_rule_that_allowed_it() {
    let rules = compile(vec![rule("anonymous", Action::Pull, "public/**"), rule("group:sre", Action::Delete, "**")]);
    let mut alice = known(Via::File, "alice");
    alice.groups = vec!["dev".into(), "sre".into()];
    let found = rules.allows(&caller(alice), Action::Push, &repository("a")).unwrap();
    assert_eq!(found.index, 1);
    assert_eq!(found.to_string(), "auth.rules[1]: group:sre may delete in **");
}

#[test]
fn what_anonymous_clients_may_do_a_client_with_credentials_may_do_too() {
    let rules =
        compile(vec![rule("anonymous", Action::Pull, "public/**"), rule("authenticated", Action::Pull, "in/**")]);
    assert!(rules.allows(&Caller::Anonymous, Action::Pull, &repository("public/a")).is_some());
    assert!(rules.allows(&user("alice"), Action::Pull, &repository("public/a")).is_some());
    assert!(rules.allows(&user("alice"), Action::Pull, &repository("in/a")).is_some());
    assert!(rules.allows(&Caller::Anonymous, Action::Pull, &repository("in/a")).is_none());
}

#[test]
fn a_name_of_one_provider_is_not_the_same_name_of_another() {
    let subjects = ["user:x", "user:system:*", "serviceaccount:ns/x", "serviceaccount:*/x", "oidc:x", "cert:x"];
    let account = "system:serviceaccount:ns:x";
    for (identity, expected) in [
        (known(Via::File, "x"), vec!["user:x"]),
        (known(Via::File, account), vec!["user:system:*"]),
        (known(Via::Kubernetes, account), vec!["serviceaccount:ns/x", "serviceaccount:*/x"]),
        (known(Via::Kubernetes, "x"), vec![]),
        (known(Via::Oidc("x".into()), account), vec!["oidc:x"]),
        (known(Via::Oidc("y".into()), "x"), vec![]),
        (known(Via::Certificate, "x"), vec!["cert:x"]),
        (known(Via::Certificate, account), vec![]),
    ] {
        let allowed = |who: &&str| {
            let rules = compile(vec![rule(who, Action::Pull, "**")]);
            rules.allows(&caller(identity.clone()), Action::Pull, &repository("a")).is_some()
        };
        assert_eq!(subjects.into_iter().filter(allowed).collect::<Vec<_>>(), expected, "{identity:?}");
    }
}

#[test]
fn a_claim_is_text_and_gives_nothing_if_it_is_no_name() {
    let rules = compile(vec![rule("authenticated", Action::Push, "{repository}/**")]);
    let with = |value: &str| {
        let mut identity = known(Via::Oidc("ci".into()), "x");
        identity.claims.insert("repository".into(), value.into());
        caller(identity)
    };
    let names = ["acme", "acme/web", "acme/web/api", "a"].map(repository);
    let allowed =
        |caller: &Caller| names.iter().filter(|name| rules.allows(caller, Action::Push, name).is_some()).count();
    assert_eq!(allowed(&with("acme")), 3);
    assert_eq!(allowed(&with("acme/web")), 2);
    for value in [
        "",
        "*",
        "**",
        "/",
        "..",
        ".",
        "a/..",
        "acme/",
        "/acme",
        "acm*",
        "{sub}",
        "Acme",
        "acme/web\n",
        &"a".repeat(300),
    ] {
        assert_eq!(allowed(&with(value)), 0, "{value:?}");
        assert!(rules.listable(&with(value)).prefixes().is_empty(), "{value:?}");
    }
    assert_eq!(allowed(&user("alice")), 0, "no claim");
    assert_eq!(rules.claims_used().iter().collect::<Vec<_>>(), ["repository"]);
}

#[test]
fn a_condition_needs_one_of_its_values_for_each_claim() {
    let mut conditional = rule("oidc:github", Action::Push, "**");
    conditional.claims.insert("ref".into(), vec!["refs/heads/main".into(), "refs/heads/release".into()]);
    conditional.claims.insert("owner".into(), vec!["acme".into()]);
    let rules = compile(vec![conditional]);
    let allowed = |claims: &[(&str, &str)]| {
        let mut identity = known(Via::Oidc("github".into()), "x");
        identity.claims = claims.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        rules.allows(&caller(identity), Action::Push, &repository("a")).is_some()
    };
    assert!(allowed(&[("ref", "refs/heads/main"), ("owner", "acme")]));
    assert!(allowed(&[("ref", "refs/heads/release"), ("owner", "acme")]));
    for claims in [
        &[("ref", "refs/heads/main")][..],
        &[("ref", "refs/heads/main"), ("owner", "acme2")],
        &[("ref", "refs/heads/mainx"), ("owner", "acme")],
        &[],
    ] {
        assert!(!allowed(claims), "{claims:?}");
    }
}

#[test]
fn a_token_needs_only_the_groups_that_rules_name() {
    let rules = compile(vec![rule("group:sre", Action::Pull, "**"), rule("group:team-*", Action::Pull, "**")]);
    let used = ["sre", "sr", "team-", "team-a", "xteam-a"].map(|group| rules.is_group_used(group));
    assert_eq!(used, [true, false, true, true, false]);
}

#[test]
fn ten_thousand_rules_cost_a_lookup_and_a_few_matches() {
    let mut rules = Vec::new();
    for n in 0..2500 {
        rules.push(rule(&format!("user:ci-{n}"), Action::Push, &format!("team-{n}/**")));
        rules.push(rule(&format!("serviceaccount:team-{n}/*"), Action::Pull, &format!("team-{n}/**")));
        rules.push(rule("anonymous", Action::Pull, &format!("public-{n}/**")));
        rules.push(rule("group:sre", Action::Pull, &format!("infra-{n}/**")));
    }
    let rules = compile(rules);
    let mut alice = known(Via::Kubernetes, "system:serviceaccount:team-7:ci");
    alice.groups = vec!["sre".into(), "dev".into()];
    for (caller, name, expected) in [
        (Caller::Anonymous, "public-9", 1),
        (Caller::Anonymous, "team-9", 0),
        (user("ci-7"), "team-7", 1),
        (user("ci-7"), "public-9", 1),
        (caller(alice.clone()), "team-7", 1),
        (caller(alice), "infra-9", 1),
    ] {
        assert_eq!(rules.0.index.candidates(&caller, Some(name)).count(), expected, "{caller:?} {name}");
        let allowed = rules.allows(&caller, Action::Pull, &repository(&format!("{name}/x")));
        assert_eq!(allowed.is_some(), expected > 0, "{caller:?} {name}");
    }
}

#[test]
fn the_catalog_looks_below_the_prefixes_and_into_no_other_directory() {
    let rules = compile(vec![
        rule("user:alice", Action::Push, "team-a/**"),
        rule("user:alice", Action::Pull, "team-a/web/*"),
        rule("user:alice", Action::Pull, "public/web-*/x"),
        rule("user:bob", Action::Pull, "**"),
    ]);
    let alice = rules.listable(&user("alice"));
    assert_eq!(alice.prefixes(), ["public/web-", "team-a"]);
    for (folder, expected) in [
        ("", true),
        ("team-a/", true),
        ("team-a/b/c/", true),
        ("team-ab/", false),
        ("public", true),
        ("public/web-1", true),
        ("public/web-1/y", false),
        ("public/api", false),
    ] {
        assert_eq!(alice.reaches(folder), expected, "{folder}");
    }
    assert_eq!(rules.listable(&user("bob")).prefixes(), [""]);
    assert!(rules.listable(&user("eve")).prefixes().is_empty() && !rules.listable(&user("eve")).reaches(""));
}

/// Rules without an index and without any of the code above: what section 2.2 of the specification
/// says, by exhaustive search.
mod reference {
    use super::*;

    fn search<P, T>(pattern: &[P], text: &[T], star: &dyn Fn(&P) -> bool, one: &dyn Fn(&P, &T) -> bool) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((p, rest)), _) if star(p) => (0..=text.len()).any(|n| search(rest, &text[n..], star, one)),
            (Some((p, rest)), Some((t, texts))) => one(p, t) && search(rest, texts, star, one),
            (Some(_), None) => false,
        }
    }

    fn glob(pattern: &str, text: &str) -> bool {
        search(pattern.as_bytes(), text.as_bytes(), &|p| *p == b'*', &|p, t| p == t)
    }

    pub(super) fn allows(rules: &[Rule], caller: &Caller, action: Action, name: &str) -> bool {
        let none = known(Via::File, "");
        let identity = if let Caller::Known(identity) = caller { identity } else { &none };
        let is = |who: &Subject| match (who, &identity.via) {
            (Subject::Anonymous, _) => true,
            _ if *caller == Caller::Anonymous => false,
            (Subject::Authenticated, _) => true,
            (Subject::Group(group), _) => identity.groups.iter().any(|mine| glob(group, mine)),
            (Subject::User(name), Via::File) | (Subject::Certificate(name), Via::Certificate) => {
                glob(name, &identity.name)
            }
            (Subject::Oidc(name), Via::Oidc(issuer)) => glob(name, issuer),
            (Subject::ServiceAccount { namespace, name }, Via::Kubernetes) => {
                let parts = identity.name.split(':').collect::<Vec<_>>();
                parts.len() == 4 && glob(namespace, parts[2]) && glob(name, parts[3])
            }
            _ => false,
        };
        let names = |pattern: &NamePattern| {
            let mut text = pattern.to_string();
            for (claim, value) in &identity.claims {
                let value = if Repository::parse(value).is_ok() { value } else { "{bad}" };
                text = text.replace(&format!("{{{claim}}}"), value);
            }
            let (pattern, name) = (text.split('/').collect::<Vec<_>>(), name.split('/').collect::<Vec<_>>());
            search(&pattern, &name, &|part| *part == "**", &|p, t| glob(p, t))
        };
        rules.iter().any(|rule| {
            rule.who.iter().any(is)
                && rule.may.iter().any(|may| *may >= action)
                && rule
                    .claims
                    .iter()
                    .all(|(name, values)| identity.claims.get(name).is_some_and(|c| values.contains(c)))
                && rule.repositories.iter().any(names)
        })
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Pull), Just(Action::Push), Just(Action::Delete)]
}

fn any_who() -> impl Strategy<Value = Subject> {
    let text = prop_oneof![
        Just("anonymous".to_owned()),
        Just("authenticated".to_owned()),
        "(user|group|oidc|cert):[ab*]{1,2}",
        "serviceaccount:[ab*]{1,2}/[ab*]{1,2}",
    ];
    text.prop_map(|text| Subject::parse(&text).unwrap())
}

fn any_pattern() -> impl Strategy<Value = NamePattern> {
    let part = prop_oneof![2 => "[ab*]{1,2}", 1 => Just("**".to_owned()), 1 => Just("{c}".to_owned())];
    prop::collection::vec(part, 1..4).prop_map(|parts| NamePattern::parse(&parts.join("/")).unwrap())
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let values = prop::collection::vec(prop_oneof![Just("a".to_owned()), Just("a/b".to_owned())], 0..3);
    let claims = prop_oneof![4 => Just(BTreeMap::new()), 1 => values.prop_map(|values| BTreeMap::from([("c".to_owned(), values)]))];
    let lists = (
        prop::collection::vec(any_who(), 1..3),
        prop::collection::vec(any_action(), 1..3),
        prop::collection::vec(any_pattern(), 1..3),
        claims,
    );
    lists.prop_map(|(who, may, repositories, claims)| Rule { who, may, repositories, claims })
}

fn any_caller() -> impl Strategy<Value = Caller> {
    let via =
        prop_oneof![Just(Via::File), "[ab]{1,2}".prop_map(Via::Oidc), Just(Via::Kubernetes), Just(Via::Certificate)];
    let name = prop_oneof!["[ab*]{1,2}", "system:serviceaccount:[ab]{1,2}:[ab]{1,2}"];
    let values = ["a", "b", "a/b", "*", "**", "..", "", "/", "a/", "{c}"].map(str::to_owned).to_vec();
    let claim = prop_oneof![9 => prop::sample::select(values), 1 => Just("a".repeat(300))];
    let identity = (via, name, prop::collection::vec("[ab*]{1,2}", 0..3), prop::option::of(claim));
    let known = identity.prop_map(|(via, name, groups, claim)| {
        let claims = claim.into_iter().map(|value| ("c".to_owned(), value)).collect();
        caller(Identity { name, groups, via, claims })
    });
    prop_oneof![1 => Just(Caller::Anonymous), 5 => known]
}

/// All names of up to three of these parts.
fn all_names() -> Vec<String> {
    let parts = ["a", "b", "ab"].map(str::to_owned).to_vec();
    let longer = |names: &[String]| {
        names.iter().flat_map(|name| parts.iter().map(move |part| format!("{name}/{part}"))).collect::<Vec<_>>()
    };
    let two = longer(&parts);
    let three = longer(&two);
    [parts.clone(), two, three].concat()
}

fn allowed(rules: &Rules, caller: &Caller, action: Action) -> Vec<String> {
    all_names().into_iter().filter(|name| rules.allows(caller, action, &repository(name)).is_some()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// 500 sets of 20 rules.
    #[test]
    fn ten_thousand_rules_decide_as_the_reference_does(
        rules in prop::collection::vec(any_rule(), 20), callers in prop::collection::vec(any_caller(), 3), action in any_action(),
    ) {
        // All rules together allow nearly everything, so each pair is compared too.
        for few in std::iter::once(&rules[..]).chain(rules.chunks(2)) {
            let compiled = compile(few.to_vec());
            for caller in &callers {
                for name in all_names().iter().step_by(4) {
                    let found = compiled.allows(caller, action, &repository(name)).is_some();
                    let expected = reference::allows(few, caller, action, name);
                    prop_assert_eq!(found, expected, "{:?} {:?} {:?} {}", few, caller, action, name);
                }
            }
        }
    }

    #[test]
    fn a_rule_more_takes_no_right_away_and_the_order_does_not_matter(
        rules in prop::collection::vec(any_rule(), 1..6), caller in any_caller(), action in any_action(),
        shuffled in any::<prop::sample::Index>(),
    ) {
        let all = allowed(&compile(rules.clone()), &caller, action);
        let fewer = allowed(&compile(rules[1..].to_vec()), &caller, action);
        prop_assert!(fewer.iter().all(|name| all.contains(name)));
        let mut turned = rules.clone();
        turned.rotate_left(shuffled.index(rules.len()));
        turned.reverse();
        prop_assert_eq!(all, allowed(&compile(turned), &caller, action));
    }

    #[test]
    fn the_catalog_is_the_names_that_the_caller_may_pull(
        rules in prop::collection::vec(any_rule(), 0..4), caller in any_caller(),
    ) {
        let rules = compile(rules);
        let listable = rules.listable(&caller);
        let prefixes = listable.prefixes();
        let below = |name: &String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let parents = |name: &str| name.match_indices('/').all(|(slash, _)| listable.reaches(&name[..slash]));
        let listed = |name: &String| below(name) && parents(name) && listable.reaches(name) && listable.contains(&repository(name));
        let catalog = all_names().into_iter().filter(listed).collect::<Vec<_>>();
        prop_assert_eq!(catalog, allowed(&rules, &caller, Action::Pull));
        let repeated = |prefix: &String| prefixes.iter().filter(|other| prefix.starts_with(*other)).count() > 1;
        prop_assert!(!prefixes.iter().any(repeated), "{:?}", prefixes);
    }
}
