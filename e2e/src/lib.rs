//! Entrepot against real clients, real S3 servers and real faults.
//!
//! The tests in `tests/` run the node as a process, as its users do, and know it only by what it prints, answers and
//! leaves on disk and in the bucket. What they stand on is here: programs that are installed once ([`tools`]), servers
//! and nodes that end with the test ([`servers`], [`node`]), a proxy that makes a bucket fail on purpose ([`proxy`]),
//! and a registry client, content and images of any size ([`client`], [`content`], [`images`]).
//!
//! Everything listens on loopback, on ports that the system chose, and keeps its files in a folder that is removed.
//! A real Kubernetes ([`cluster`]) has a network of its own instead; what is tried on it is in [`scenarios`].

pub mod bench;
pub mod check;
pub mod client;
pub mod cluster;
pub mod commands;
pub mod container;
pub mod content;
pub mod disks;
pub mod history;
pub mod images;
pub mod node;
pub mod node_binary;
pub mod podman;
pub mod process;
pub mod proxy;
pub mod push;
pub mod races;
pub mod s3;
pub mod scenarios;
pub mod servers;
pub mod tools;
pub mod up;
pub mod usage;
pub mod wait;

pub use client::Registry;
pub use content::Content;
pub use node::Node;
