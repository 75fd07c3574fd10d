//! The nodes that a configuration lists one by one.

use crate::{NodeName, PeerAddress, PeerUrl};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// The URLs of nodes by their names.
#[derive(Clone, Debug, PartialEq)]
pub enum Peers {
    /// A URL for each name, in which nothing is substituted.
    Listed(BTreeMap<String, PeerAddress>),
    /// The URL of all nodes: this was the former name of `peerUrl`. Reading a configuration moves it
    /// to that field.
    Template(PeerUrl),
}

impl Peers {
    /// The address of a node, if it is listed.
    pub(crate) fn of(&self, node: &NodeName) -> Option<PeerAddress> {
        match self {
            Peers::Listed(listed) => listed.get(node.as_str()).cloned(),
            Peers::Template(url) => url.of(node),
        }
    }

    /// Whether any node is reached over TLS.
    pub(crate) fn any_https(&self) -> bool {
        match self {
            Peers::Listed(listed) => listed.values().any(PeerAddress::is_https),
            Peers::Template(url) => url.is_https(),
        }
    }
}

impl Serialize for Peers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Peers::Listed(listed) => listed.serialize(serializer),
            Peers::Template(url) => url.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Peers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Peers, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

/// Reads a map or a template. An untagged enum would not say what is wrong with either.
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Peers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from node names to URLs")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Peers, E> {
        PeerUrl::parse(text).map(Peers::Template).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Peers, A::Error> {
        Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Peers::Listed)
    }
}
