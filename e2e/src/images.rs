//! OCI images on disk for real clients to copy: image layouts with any number and size of layers.

use crate::push::{CONFIG, IMAGE, INDEX, LAYER};
use anyhow::{Context, Result};
use entrepot_oci::digest::Hasher;
use entrepot_oci::{Algorithm, Digest};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An image layout (image-spec, image-layout.md) in a folder that is removed when the value is
/// dropped.
pub struct Layout {
    folder: TempDir,
    tags: Vec<Value>,
}

/// Content of a layout with its descriptor.
#[derive(Clone, Debug)]
pub struct Described {
    pub digest: Digest,
    descriptor: Value,
}

impl Layout {
    /// # Errors
    /// If the folder cannot be written.
    pub fn new() -> Result<Layout> {
        // Lower case, because podman derives a repository name from the path.
        let name = format!("entrepot-{:016x}", rand::random::<u64>());
        let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir()?;
        fs::create_dir_all(folder.path().join("blobs/sha256"))?;
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Layout { folder, tags: Vec::new() })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Path of the file with this content.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.path().join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// A layer with one file of `size` random bytes, uncompressed, so that no client changes it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn layer(&self, name: &str, size: u64) -> Result<Described> {
        self.add(LAYER, |file| {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_mode(0o644);
            header.set_mtime(0);
            let content = random(name).take(size);
            let mut archive = tar::Builder::new(file);
            archive.append_data(&mut header, name, content)?;
            archive.finish()
        })
    }

    /// A blob of exactly these bytes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn bytes(&self, kind: &str, content: &[u8]) -> Result<Described> {
        self.add(kind, |file| file.write_all(content))
    }

    /// An image for a CPU architecture.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn image(&self, architecture: &str, layers: &[Described]) -> Result<Described> {
        let platform = json!({"os": "linux", "architecture": architecture});
        let config = json!({
            "os": "linux",
            "architecture": architecture,
            "config": {"Cmd": ["/none"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| l.digest.to_string()).collect::<Vec<_>>()},
        });
        let config = self.bytes(CONFIG, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": config.descriptor,
            "layers": layers.iter().map(|layer| &layer.descriptor).collect::<Vec<_>>(),
        });
        let mut image = self.bytes(IMAGE, manifest.to_string().as_bytes())?;
        image.descriptor["platform"] = platform;
        Ok(image)
    }

    /// A runnable image for this machine. `run` is the `config` object of the image config
    /// (image-spec). Each layer is given with its descriptor and the digest of its uncompressed
    /// archive.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn image_of(&self, run: &Value, layers: &[(Described, Digest)]) -> Result<Described> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "os": "linux",
            "architecture": architecture,
            "config": run,
            "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|(_, archive)| archive.to_string()).collect::<Vec<_>>(),
            },
        });
        let config = self.bytes(CONFIG, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": config.descriptor,
            "layers": layers.iter().map(|(layer, _)| &layer.descriptor).collect::<Vec<_>>(),
        });
        let mut image = self.bytes(IMAGE, manifest.to_string().as_bytes())?;
        image.descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        Ok(image)
    }

    /// An index of images.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn index(&self, images: &[Described]) -> Result<Described> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": images.iter().map(|image| &image.descriptor).collect::<Vec<_>>(),
        });
        self.bytes(INDEX, index.to_string().as_bytes())
    }

    /// An artifact with the subject `subject`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn artifact(&self, kind: &str, content: &[u8], subject: &Described) -> Result<Described> {
        let layer = self.bytes("text/plain", content)?;
        let config = self.bytes("application/vnd.oci.empty.v1+json", b"{}")?;
        let mut about = subject.descriptor.clone();
        about.as_object_mut().context("the descriptor is not an object")?.remove("platform");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "artifactType": kind,
            "config": config.descriptor,
            "layers": [layer.descriptor],
            "subject": about,
        });
        self.bytes(IMAGE, manifest.to_string().as_bytes())
    }

    /// Adds a tag to the layout's index.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn tag(&mut self, named: &Described, tag: &str) -> Result<()> {
        let mut entry = named.descriptor.clone();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.tags.push(entry);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.tags});
        Ok(fs::write(self.path().join("index.json"), index.to_string())?)
    }

    /// The digests of all content in the layout.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn digests(&self) -> Result<Vec<Digest>> {
        let entries = fs::read_dir(self.path().join("blobs/sha256"))?;
        entries
            .map(|entry| {
                let name = entry?.file_name();
                Ok(Digest::from_hex(
                    Algorithm::Sha256,
                    name.to_str().context("the name of a blob is not valid UTF-8")?,
                )?)
            })
            .collect()
    }

    fn add(&self, kind: &str, write: impl FnOnce(&mut Hashed) -> io::Result<()>) -> Result<Described> {
        let unfinished = self.path().join("unfinished");
        let mut file = Hashed { file: File::create(&unfinished)?, hasher: Hasher::new(Algorithm::Sha256), size: 0 };
        write(&mut file)?;
        let (digest, size) = (file.hasher.finish(), file.size);
        fs::rename(unfinished, self.blob(&digest))?;
        let descriptor = json!({"mediaType": kind, "digest": digest.to_string(), "size": size});
        Ok(Described { digest, descriptor })
    }
}

/// A file that is hashed while it is written.
struct Hashed {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// An endless stream of bytes that depends only on the name.
fn random(name: &str) -> impl Read {
    use rand::{RngCore, SeedableRng, rngs::SmallRng};
    struct Random(SmallRng);
    impl Read for Random {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.fill_bytes(buffer);
            Ok(buffer.len())
        }
    }
    let seed = Digest::of(Algorithm::Sha256, name.as_bytes()).hex();
    Random(SmallRng::seed_from_u64(u64::from_str_radix(&seed[..16], 16).unwrap_or_default()))
}
