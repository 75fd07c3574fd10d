//! Container images with one static program each, built without a container engine. The same
//! program gives the same bytes each time.
//!
//! An image has one layer, with the program and the CA certificates of Mozilla: no shell, no
//! package, no writable file, and a user other than root. The image does not depend on this
//! machine: it contains neither the time nor a path.

use crate::commands;
use crate::images::{Described, Layout};
use crate::node_binary::{self, Variant};
use crate::push::LAYER;
use crate::tools::{self, Tool};
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use entrepot_oci::{Algorithm, Digest};
use flate2::{Compression, GzBuilder};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::Path;

/// The user of our images: `nonroot`, by the convention of distroless images.
const USER: u32 = 65532;
/// The tag of an image in its layout.
pub const TAG: &str = "image";

/// An image on disk, which is removed when the value is dropped.
pub struct Image {
    layout: Layout,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Size of the compressed layer in bytes.
    pub size: u64,
}

/// A file of an image.
struct File {
    path: String,
    mode: u32,
    content: Vec<u8>,
}

impl Image {
    /// An image with one program at `/name`.
    ///
    /// # Errors
    /// If the program is not static, because it would not run.
    pub fn of_program(name: &str, program: &Path, arguments: &[&str]) -> Result<Image> {
        let content = fs::read(program).with_context(|| program.display().to_string())?;
        ensure!(is_static(&content), "{} is not a static program", program.display());
        let files = [
            File { path: name.to_owned(), mode: 0o755, content },
            File { path: "etc/ssl/certs/ca-certificates.crt".to_owned(), mode: 0o644, content: authorities() },
        ];
        let entrypoint: Vec<_> =
            std::iter::once(format!("/{name}")).chain(arguments.iter().map(|a| (*a).to_owned())).collect();
        let run = json!({"Entrypoint": entrypoint, "User": format!("{USER}:{USER}")});
        Image::of(&files, run, Compression::best())
    }

    fn of(files: &[File], mut run: serde_json::Value, compression: Compression) -> Result<Image> {
        let mut layout = Layout::new()?;
        let archive = archive(files)?;
        let contents = Digest::of(Algorithm::Sha256, &archive);
        // Neither name nor time in the header, so that the same archive gives the same layer.
        let mut compressed = GzBuilder::new().mtime(0).write(Vec::new(), compression);
        compressed.write_all(&archive)?;
        let compressed = compressed.finish()?;
        let layer = layout.bytes(&format!("{LAYER}+gzip"), &compressed)?;
        run["Env"] = json!(["PATH=/bin:/"]);
        run["WorkingDir"] = json!("/");
        let image = layout.image_of(&run, &[(layer, contents)])?;
        layout.tag(&image, TAG)?;
        let Described { digest, .. } = image;
        Ok(Image { layout, digest, size: compressed.len() as u64 })
    }

    /// Copies the image to a registry without TLS. `name` is the full name with a tag.
    ///
    /// # Errors
    /// If the registry rejects it.
    pub async fn push(&self, name: &str) -> Result<()> {
        let mut skopeo = tokio::process::Command::new(tools::system("skopeo")?);
        skopeo.args(["copy", "--quiet", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false"]);
        skopeo.arg(format!("oci:{}:{TAG}", self.layout.path().display())).arg(format!("docker://{name}"));
        commands::run(&mut skopeo).await.map(drop)
    }

    /// The folder of the layout, for clients that read one. The tag of the image in it is [`TAG`].
    pub fn path(&self) -> &Path {
        self.layout.path()
    }
}

/// The release image of a node.
///
/// # Errors
/// If the node does not build.
pub fn node() -> Result<Image> {
    Image::of_program("entrepot-node", &Variant::Release.path()?, &[])
}

/// The operator's image.
///
/// # Errors
/// If the operator does not build.
pub fn operator() -> Result<Image> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("workspace root not found")?;
    Image::of_program("entrepot-operator", &node_binary::released("entrepot-operator", workspace, None)?, &[])
}

/// The image of a pod's sandbox: an init that waits and reaps processes.
///
/// # Errors
/// If catatonit is not installed.
pub fn pause() -> Result<Image> {
    Image::of_program("catatonit", &tools::system("catatonit")?, &["-P"])
}

/// A shell with the usual tools, for pods that inspect the cluster from inside. It waits unless the
/// pod has another command.
///
/// # Errors
/// If busybox is not installed.
pub fn busybox() -> Result<Image> {
    let files = [File { path: "bin/busybox".to_owned(), mode: 0o755, content: shell()? }];
    let run = json!({"Cmd": ["/bin/busybox", "sleep", "1000000"], "User": format!("{USER}:{USER}")});
    Image::of(&files, run, Compression::fast())
}

/// MinIO and a shell, with root as the user: what the image `minio/minio` has that a pod can see.
///
/// # Errors
/// If MinIO does not build, or busybox is not installed.
pub fn minio() -> Result<Image> {
    let files = [
        File { path: "bin/sh".to_owned(), mode: 0o755, content: shell()? },
        File { path: "bin/minio".to_owned(), mode: 0o755, content: fs::read(Tool::Minio.path()?)? },
    ];
    Image::of(&files, json!({}), Compression::fast())
}

/// busybox, which is a shell if its name is `sh`, and has the usual tools built in.
fn shell() -> Result<Vec<u8>> {
    let content = fs::read(tools::system("busybox")?)?;
    ensure!(is_static(&content), "busybox is not static: install Debian's busybox-static");
    Ok(content)
}

/// An archive of these files and their folders, owned by root and without a time.
fn archive(files: &[File]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders: Vec<&Path> = files
        .iter()
        .flat_map(|file| Path::new(&file.path).ancestors().skip(1))
        .filter(|path| path.parent().is_some())
        .collect();
    folders.sort();
    folders.dedup();
    let entries = folders
        .into_iter()
        .map(|folder| (folder, tar::EntryType::Directory, 0o755, &[] as &[u8]))
        .chain(files.iter().map(|file| (Path::new(&file.path), tar::EntryType::Regular, file.mode, &*file.content)));
    for (path, kind, mode, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)?;
    }
    Ok(archive.into_inner()?)
}

/// Mozilla's CA certificates in PEM, from a crate that `Cargo.lock` pins.
fn authorities() -> Vec<u8> {
    let mut bundle = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        bundle.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = STANDARD.encode(certificate.as_ref());
        for line in text.as_bytes().chunks(64) {
            bundle.push_str(&String::from_utf8_lossy(line));
            bundle.push('\n');
        }
        bundle.push_str("-----END CERTIFICATE-----\n");
    }
    bundle.into_bytes()
}

/// Whether a 64-bit ELF program needs no interpreter (elf(5): it has no program header of type
/// `PT_INTERP`).
fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, size: usize| {
        let bytes = program.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let headers = || {
        let (at, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count).map(|index| number(at + index * size, 4)).collect::<Option<Vec<_>>>()
    };
    program.starts_with(b"\x7fELF\x02\x01")
        && headers().is_some_and(|kinds| kinds.iter().all(|kind| u32::try_from(*kind) != Ok(INTERPRETER)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_gives_the_same_image() {
        let files = || [File { path: "bin/a".to_owned(), mode: 0o755, content: vec![7; 100_000] }];
        let build = || Image::of(&files(), json!({"User": "1:1"}), Compression::best()).unwrap().digest;
        assert_eq!(build(), build());
    }

    #[test]
    fn the_archive_has_every_folder_before_its_files() {
        let file = File { path: "etc/ssl/certs/a".to_owned(), mode: 0o644, content: Vec::new() };
        let bytes = archive(&[file]).unwrap();
        let mut reader = tar::Archive::new(&*bytes);
        let paths: Vec<_> =
            reader.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(paths, ["etc", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/a"]);
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        assert!(!is_static(&fs::read("/proc/self/exe").unwrap()));
        assert!(!is_static(b"#!/bin/sh\n"));
    }

    #[test]
    fn the_certificates_are_pem() {
        let bundle = String::from_utf8(authorities()).unwrap();
        let begun = bundle.matches("-----BEGIN CERTIFICATE-----\n").count();
        assert!(begun > 50 && begun == bundle.matches("-----END CERTIFICATE-----\n").count());
    }
}
