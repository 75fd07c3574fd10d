//! OCI images on disk that real clients copy: an image layout of any number and size of layers.

use crate::push::{CONFIG, IMAGE, INDEX, LAYER};
use anyhow::{Context, Result};
use entrepot_node::oci::{Algorithm, Digest, digest::Hasher};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An image layout (image-spec, image-layout.md) in a folder that is removed with its value.
pub struct Layout {
    folder: TempDir,
    tags: Vec<Value>,
}

/// Content of a layout: what its descriptor says.
#[derive(Clone, Debug)]
pub struct Described {
    pub digest: Digest,
    descriptor: Value,
}

impl Layout {
    /// # Errors
    /// When the folder cannot be written.
    pub fn new() -> Result<Layout> {
        // Lower case: podman makes a repository's name of the path.
        let name = format!("entrepot-{:016x}", rand::random::<u64>());
        let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir()?;
        fs::create_dir_all(folder.path().join("blobs/sha256"))?;
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Layout { folder, tags: Vec::new() })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the bytes of some content lie.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.path().join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// A layer that holds one file of `size` random bytes, uncompressed, so that no client changes it.
    ///
    /// # Errors
    /// When it cannot be written.
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
    /// When it cannot be written.
    pub fn bytes(&self, kind: &str, content: &[u8]) -> Result<Described> {
        self.add(kind, |file| file.write_all(content))
    }

    /// An image for a processor architecture.
    ///
    /// # Errors
    /// When it cannot be written.
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

    /// An image for this machine that runs: `run` is how (the `config` of a config, image-spec), and each layer is
    /// known by its descriptor and by the digest of the archive that it holds.
    ///
    /// # Errors
    /// When it cannot be written.
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
    /// When it cannot be written.
    pub fn index(&self, images: &[Described]) -> Result<Described> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": images.iter().map(|image| &image.descriptor).collect::<Vec<_>>(),
        });
        self.bytes(INDEX, index.to_string().as_bytes())
    }

    /// An artifact that is about `subject`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn artifact(&self, kind: &str, content: &[u8], subject: &Described) -> Result<Described> {
        let layer = self.bytes("text/plain", content)?;
        let config = self.bytes("application/vnd.oci.empty.v1+json", b"{}")?;
        let mut about = subject.descriptor.clone();
        about.as_object_mut().context("a descriptor")?.remove("platform");
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

    /// Names some content in the layout's index.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn tag(&mut self, named: &Described, tag: &str) -> Result<()> {
        let mut entry = named.descriptor.clone();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.tags.push(entry);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.tags});
        Ok(fs::write(self.path().join("index.json"), index.to_string())?)
    }

    /// All content of the layout.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn digests(&self) -> Result<Vec<Digest>> {
        let entries = fs::read_dir(self.path().join("blobs/sha256"))?;
        entries
            .map(|entry| {
                let name = entry?.file_name();
                Ok(Digest::from_hex(Algorithm::Sha256, name.to_str().context("a name of hex digits")?)?)
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

/// A file whose digest is known when it is written.
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

/// Bytes without end, the same for the same name.
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
