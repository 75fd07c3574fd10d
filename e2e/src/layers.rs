//! Which module imports which: layers point down, and no files import each other in a cycle.
//!
//! The compiler enforces this between crates. Within a crate, this check does: it reads the `use`
//! lines and the paths in code of every file, and resolves them to files. Tests may import anything.

use anyhow::{Context, Result, ensure};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates whose files are read: the folder of their sources.
pub const CRATES: [&str; 9] = [
    "node/src",
    "node/access/src",
    "node/bucket/src",
    "node/config/src",
    "node/oci/src",
    "node/runtime/src",
    "operator/src",
    "e2e/src",
    "e2e/bench/src",
];

/// The layers of the node, lowest first. A module imports only modules of lower layers, and never one
/// of its own.
const NODE_LAYERS: [&[&str]; 6] = [
    &["observe"],
    &["store"],
    &["repository"],
    &["clean", "discover", "fetch", "manage", "replicate", "scrub", "upload"],
    &["http"],
    &["app"],
];

/// The files of a crate by the path of their module, such as `fetch::fill`; the root is empty.
type Modules = BTreeMap<String, PathBuf>;
/// The modules that each module imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Every import that points upwards, and every cycle, as lines that name the files.
///
/// # Errors
/// If a source file cannot be read.
pub fn violations(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in CRATES {
        let sources = root.join(folder);
        let modules = modules(&sources)?;
        ensure!(!modules.is_empty(), "{folder} has no sources");
        let imports = imports(&modules)?;
        if folder == "node/src" {
            found.extend(upwards(&imports));
        }
        found.extend(cycles(&imports).into_iter().map(|cycle| format!("{folder}: cycle {}", cycle.join(" -> "))));
    }
    Ok(found)
}

fn modules(sources: &Path) -> Result<Modules> {
    Ok(source_files(sources)?.into_iter().map(|path| (module_of(sources, &path), path)).collect())
}

/// The files below a folder that are not tests.
///
/// # Errors
/// If a folder cannot be read.
pub fn source_files(sources: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![sources.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(&path) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

fn is_test(path: &Path) -> bool {
    let test = |name: &str| name == "tests" || name == "testing" || name.ends_with("_tests");
    path.with_extension("").iter().filter_map(|part| part.to_str()).any(test)
}

/// `fetch/fill/mod.rs` and `fetch/fill.rs` are `fetch::fill`.
fn module_of(sources: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(sources).unwrap_or(path).with_extension("");
    let mut parts: Vec<_> = relative.iter().filter_map(|part| part.to_str()).collect();
    if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
        parts.pop();
    }
    parts.join("::")
}

fn imports(modules: &Modules) -> Result<Imports> {
    let path = Regex::new(r"\b(crate|(?:super::)*super|self)((?:::\w+)*)(::\{[^;]*\})?")?;
    let mut imports = Imports::new();
    for (module, file) in modules {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let text = without_comments(production(&text));
        let mut targets = BTreeSet::new();
        for found in path.captures_iter(&text) {
            let base = base(module, &found[1]);
            let names: Vec<_> = found[2].split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let group = found.get(3).map(|group| group.as_str());
            for full in paths(&base, &names, group) {
                if let Some(target) = resolve(modules, &full).filter(|target| target != module) {
                    targets.insert(target);
                }
            }
        }
        imports.insert(module.clone(), targets);
    }
    Ok(imports)
}

/// The text without the tests at its end.
pub fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The module that `crate`, `self` or some `super`s name.
fn base(module: &str, word: &str) -> Vec<String> {
    let mut parts: Vec<_> = module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    match word {
        "crate" => parts.clear(),
        "self" => {}
        supers => parts.truncate(parts.len().saturating_sub(supers.split("::").count())),
    }
    parts
}

/// The paths that a `use` names: one, or one for each of a group. Only the first names of a group count: what is nested
/// deeper is below them.
fn paths(base: &[String], names: &[String], group: Option<&str>) -> Vec<Vec<String>> {
    let stem: Vec<_> = base.iter().chain(names).cloned().collect();
    let Some(group) = group else { return vec![stem] };
    let inner = group.trim_start_matches("::{").trim_end_matches('}');
    let (mut depth, mut item, mut items) = (0, String::new(), Vec::new());
    for letter in inner.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ if depth == 0 => item.push(letter),
            _ => {}
        }
    }
    items.push(item);
    let with_stem = |item: &String| {
        let inner = item.split("::").map(str::trim).filter(|name| !name.is_empty() && *name != "self");
        stem.iter().cloned().chain(inner.map(|name| name.split(' ').next().unwrap_or(name).to_owned())).collect()
    };
    items.iter().map(with_stem).collect()
}

/// The file of a path: the longest beginning that is a module.
fn resolve(modules: &Modules, path: &[String]) -> Option<String> {
    (1..=path.len()).rev().map(|length| path[..length].join("::")).find(|module| modules.contains_key(module))
}

fn upwards(imports: &Imports) -> Vec<String> {
    let layer = |module: &str| {
        let top = module.split("::").next().unwrap_or_default();
        NODE_LAYERS.iter().position(|layer| layer.contains(&top)).map(|position| (position, top.to_owned()))
    };
    let mut found = Vec::new();
    for (module, targets) in imports {
        let Some((from, name)) = layer(module) else {
            if !module.is_empty() {
                found.push(format!("node/src: {module} is in no layer of NODE_LAYERS"));
            }
            continue;
        };
        for target in targets {
            if let Some((to, other)) = layer(target)
                && name != other
                && to >= from
            {
                found.push(format!("node/src: {module} imports {target}, which is not below it"));
            }
        }
    }
    found
}

/// Cycles of files. A parent module declares its children and may use them; a child may use what its parents define for
/// all children. Those pairs are one idea in several files and not counted.
fn cycles(imports: &Imports) -> Vec<Vec<String>> {
    let related = |one: &str, other: &str| {
        let below = |child: &str, parent: &str| parent.is_empty() || child.starts_with(&format!("{parent}::"));
        below(one, other) || below(other, one)
    };
    let next = |module: &str| -> Vec<String> {
        let targets = imports.get(module).into_iter().flatten();
        targets.filter(|target| !related(module, target)).cloned().collect()
    };
    let mut found = BTreeSet::new();
    for start in imports.keys() {
        // The shortest way back, if there is one.
        let mut from: BTreeMap<String, String> = BTreeMap::new();
        let mut queue = std::collections::VecDeque::from([start.clone()]);
        while let Some(module) = queue.pop_front() {
            for target in next(&module) {
                if target == *start {
                    let mut cycle = vec![module.clone()];
                    while let Some(before) = from.get(&cycle[cycle.len() - 1]) {
                        cycle.push(before.clone());
                    }
                    cycle.reverse();
                    found.insert(rotated(cycle));
                    queue.clear();
                    break;
                }
                if !from.contains_key(&target) {
                    from.insert(target.clone(), module.clone());
                    queue.push_back(target);
                }
            }
        }
    }
    found.into_iter().collect()
}

/// From its first name on, so that a cycle is the same wherever it was entered.
fn rotated(mut cycle: Vec<String>) -> Vec<String> {
    let first = cycle.iter().enumerate().min_by_key(|(_, name)| *name).map_or(0, |(position, _)| position);
    cycle.rotate_left(first);
    cycle.push(cycle[0].clone());
    cycle
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let sources = folder.path().to_owned();
        (folder, sources)
    }

    fn imports_of(files: &[(&str, &str)]) -> Imports {
        let (_folder, sources) = written(files);
        imports(&modules(&sources).unwrap()).unwrap()
    }

    #[test]
    fn an_import_of_a_higher_layer_or_of_a_neighbour_is_found() {
        let imports = imports_of(&[
            ("lib.rs", "pub mod store; pub mod http; pub mod fetch; pub mod upload;"),
            ("store/mod.rs", "mod index;"),
            ("store/index.rs", "use crate::http::Answer;"),
            ("http.rs", "use crate::store::Store;\nfn f() { crate::fetch::g() }"),
            ("fetch.rs", "use crate::{store::Store, upload::Session};"),
            ("upload.rs", "// use crate::fetch::Fetch;\n#[cfg(test)]\nmod tests { use crate::http; }"),
        ]);
        let mut found = upwards(&imports);
        found.sort();
        let expected = ["fetch imports upload", "store::index imports http"];
        let expected = expected.map(|one| format!("node/src: {one}, which is not below it"));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_cycle_of_files_is_found_once() {
        let imports = imports_of(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use super::b::B;"),
            ("b.rs", "use crate::c::{self, C as D};"),
            ("c/mod.rs", "use crate::a;\nmod d;"),
            ("c/d.rs", "use super::E;"),
        ]);
        assert_eq!(cycles(&imports), [["a", "b", "c", "a"].map(str::to_owned).to_vec()]);
    }

    #[test]
    fn this_project_has_neither() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert_eq!(violations(&root).unwrap(), Vec::<String>::new());
    }
}
