//! Tests of Entrepot with real clients, S3 servers and faults.
//!
//! The tests in `tests/` run the node as a process, as its users do. They know the node only by its
//! output, its responses, and what it leaves on disk and in the bucket. This crate provides the
//! rest: programs that are installed once ([`tools`]), servers and nodes that stop with the test
//! ([`servers`], [`node`]), a proxy that injects bucket faults ([`proxy`]), and a registry client,
//! content and images of any size ([`client`], [`content`], [`images`]).
//!
//! All servers listen on loopback, on ports that the system chooses, and keep their files in a
//! folder that is removed. The Kubernetes cluster ([`cluster`]) has its own network instead; its
//! tests are in [`scenarios`].

pub mod bench;
pub mod check;
pub mod client;
pub mod cluster;
pub mod commands;
pub mod container;
pub mod content;
pub mod disks;
#[cfg(test)]
mod documents;
pub mod history;
pub mod images;
#[cfg(test)]
mod layers;
pub mod node;
pub mod node_binary;
pub mod pki;
pub mod podman;
pub mod process;
pub mod proxy;
pub mod push;
pub mod races;
pub mod s3;
pub mod scenarios;
pub mod servers;
#[cfg(test)]
mod sizes;
pub mod tls;
pub mod tools;
pub mod up;
pub mod usage;
pub mod wait;

pub use client::Registry;
pub use content::Content;
pub use node::Node;
