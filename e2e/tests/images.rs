//! The released images: the same sources give the same bytes.

use entrepot_e2e::container::Image;
use entrepot_e2e::node_binary::{released, target_folder};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// The second build compiles our crates again, from a copy of the sources in another folder; the
/// dependencies, which `Cargo.lock` pins, are compiled only once.
#[test]
fn two_builds_of_an_image_have_the_same_digest() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let copied = TempDir::new().unwrap();
    copy(workspace, copied.path());
    for name in ["entrepot-node", "entrepot-operator"] {
        let first = released(name, workspace, None).unwrap();
        // Before the second build overwrites the program of the first.
        let first_digest = Image::of_program(name, &first, &[]).unwrap().digest;
        let second = released(name, copied.path(), Some(target_folder(&first).unwrap())).unwrap();
        assert_eq!(Image::of_program(name, &second, &[]).unwrap().digest, first_digest, "{name}");
        let program = fs::read(&second).unwrap();
        for path in [workspace, copied.path()] {
            let path = path.to_str().unwrap().as_bytes();
            assert!(
                !program.windows(path.len()).any(|window| window == path),
                "{name} contains the path of its sources"
            );
        }
    }
}

/// Copies all sources without the output of cargo and git.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, copied) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_file() {
            fs::copy(source, copied).unwrap();
        } else if entry.file_type().unwrap().is_dir()
            && entry.file_name() != ".git"
            && !source.join("CACHEDIR.TAG").exists()
        {
            copy(&source, &copied);
        }
    }
}
