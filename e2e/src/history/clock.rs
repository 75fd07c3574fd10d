//! A node whose wall clock can be set back while it runs, by Debian's libfaketime.

use crate::node::Plan;
use crate::tools;
use anyhow::{Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// How far it is set back: less than the 15 minutes of clock skew that S3 accepts in a signature
/// (AWS documentation, "RequestTimeTooSkewed").
const BACK: i64 = 600;

/// The clock of one node.
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// A correct clock for the node. Its offset is stored in a file in the folder.
    ///
    /// # Errors
    /// If libfaketime cannot be installed.
    pub fn of(plan: &mut Plan, folder: &Path) -> Result<Clock> {
        tools::system("faketime")?;
        let library =
            PathBuf::from(format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH));
        ensure!(
            library.exists(),
            "{} does not exist; check where the package of libfaketime installs its library",
            library.display()
        );
        let clock = Clock { file: folder.join("clock") };
        clock.set(0)?;
        let variables = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            // Only the wall clock: nothing sets the monotonic clock back.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        plan.environment.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        Ok(clock)
    }

    /// # Errors
    /// If the file cannot be written.
    pub fn set_back(&self) -> Result<()> {
        self.set(-BACK)
    }

    /// # Errors
    /// If the file cannot be written.
    pub fn set_right(&self) -> Result<()> {
        self.set(0)
    }

    fn set(&self, seconds: i64) -> Result<()> {
        // Renamed into place, because the node may read it at any time.
        let unfinished = self.file.with_extension("unfinished");
        fs::write(&unfinished, format!("{seconds:+}\n"))?;
        Ok(fs::rename(unfinished, &self.file)?)
    }
}
