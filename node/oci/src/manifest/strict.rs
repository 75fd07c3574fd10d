//! What a pushed manifest must not contain, because clients would read it differently.
//!
//! Most clients are written in Go. Its `encoding/json` compares names without regard to case, and
//! the last of several equal names counts. This registry compares names exactly. So a document with
//! `layers` and `Layers` is one image here and another one there, and the content that a client
//! pulls was never looked up (compare CVE-2021-41190). Such a document is rejected.
//!
//! Only pushed manifests are checked. What a bucket already has is read as it is.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use std::fmt;

/// Maximum depth of nested arrays and objects. A manifest needs 5. Readers give up at some depth:
/// serde_json at 128, Python at about 1000, Go at 10,000.
const MAX_DEPTH: usize = 100;

/// The largest size that Go reads, whose type for it is `int64`.
const MAX_SIZE: u64 = i64::MAX.unsigned_abs();

/// What is expected at a place of the document.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Document,
    Descriptors,
    Descriptor,
    Platform,
    Size,
    Text,
    Texts,
    /// An object of text, whose names are free.
    Annotations,
    /// A value that no client reads, or one that [`super::Manifest::parse`] checks. Names in it are
    /// free.
    Any,
}

/// The members of a document that a registry or a client reads (image-spec, manifest.md and
/// image-index.md; Docker's v2 schemas 1 and 2).
const DOCUMENT: [(&str, Shape); 11] = [
    ("schemaVersion", Shape::Any),
    ("mediaType", Shape::Any),
    ("artifactType", Shape::Any),
    ("config", Shape::Descriptor),
    ("layers", Shape::Descriptors),
    ("manifests", Shape::Descriptors),
    ("subject", Shape::Descriptor),
    ("annotations", Shape::Annotations),
    ("fsLayers", Shape::Any),
    ("history", Shape::Any),
    ("signatures", Shape::Any),
];

/// The members of a descriptor (image-spec, descriptor.md).
const DESCRIPTOR: [(&str, Shape); 8] = [
    ("mediaType", Shape::Text),
    ("digest", Shape::Text),
    ("size", Shape::Size),
    ("urls", Shape::Texts),
    ("annotations", Shape::Annotations),
    ("data", Shape::Text),
    ("platform", Shape::Platform),
    ("artifactType", Shape::Text),
];

/// The members of a platform (image-spec, image-index.md; `features` is of Docker's manifest list).
const PLATFORM: [(&str, Shape); 6] = [
    ("architecture", Shape::Text),
    ("os", Shape::Text),
    ("os.version", Shape::Text),
    ("os.features", Shape::Texts),
    ("variant", Shape::Text),
    ("features", Shape::Texts),
];

impl Shape {
    /// The members whose names count. Empty if all names are free.
    fn members(self) -> &'static [(&'static str, Shape)] {
        match self {
            Shape::Document => &DOCUMENT,
            Shape::Descriptor => &DESCRIPTOR,
            Shape::Platform => &PLATFORM,
            _ => &[],
        }
    }

    /// The shape of members that are not in [`Shape::members`].
    fn other_members(self) -> Shape {
        if self == Shape::Annotations { Shape::Text } else { Shape::Any }
    }

    /// The shape of the elements of an array here; `None` if an array is not expected.
    fn elements(self) -> Option<Shape> {
        match self {
            Shape::Descriptors => Some(Shape::Descriptor),
            Shape::Texts => Some(Shape::Text),
            Shape::Any => Some(Shape::Any),
            _ => None,
        }
    }

    fn may_be_object(self) -> bool {
        matches!(self, Shape::Document | Shape::Descriptor | Shape::Platform | Shape::Annotations | Shape::Any)
    }
}

/// Checks that every client reads the document as this registry does.
///
/// # Errors
/// If the bytes are not JSON in UTF-8, or if readers could disagree about the document.
pub(super) fn check(bytes: &[u8]) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Walk { shape: Shape::Document, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Reads one value of this shape, and everything in it. A value is read even if nobody needs it,
/// because an ignored value would not be checked for UTF-8 and depth.
#[derive(Clone, Copy)]
struct Walk {
    shape: Shape,
    depth: usize,
}

impl Walk {
    fn inside<E: Error>(self) -> Result<usize, E> {
        if self.depth < MAX_DEPTH {
            Ok(self.depth + 1)
        } else {
            Err(E::custom(format_args!("arrays and objects must not be nested more than {MAX_DEPTH} levels deep")))
        }
    }

    /// The shape of the member `name`, after the members in `seen`.
    fn member<E: Error>(self, name: &str, seen: &mut Vec<&'static str>) -> Result<Shape, E> {
        let members = self.shape.members();
        if let Some((known, shape)) = members.iter().find(|(known, _)| *known == name) {
            if seen.contains(known) {
                return Err(E::custom(format_args!("duplicate member {known:?}; remove one of them")));
            }
            seen.push(known);
            return Ok(*shape);
        }
        match members.iter().find(|(known, _)| go_equal(known, name)) {
            Some((known, _)) => Err(E::custom(format_args!(
                "member {name:?} differs from {known:?} only in case, and clients read it as that; rename or remove it"
            ))),
            None => Ok(self.shape.other_members()),
        }
    }

    /// Accepts a value that is neither an array nor an object, if one is expected here.
    fn scalar<E: Error>(self, expected: bool, found: Unexpected<'_>) -> Result<(), E> {
        if expected || self.shape == Shape::Any { Ok(()) } else { Err(E::invalid_type(found, &self)) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.shape {
            Shape::Document => "a manifest, which is an object",
            Shape::Descriptors => "an array of descriptors",
            Shape::Descriptor => "a descriptor, which is an object",
            Shape::Platform => "a platform, which is an object",
            Shape::Size => "a size in bytes",
            Shape::Text => "text",
            Shape::Texts => "an array of text",
            Shape::Annotations => "annotations, which are an object of text",
            Shape::Any => "any value",
        })
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(false, Unexpected::Bool(value))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.scalar(false, Unexpected::Signed(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        if self.shape == Shape::Size && number > MAX_SIZE {
            return Err(E::custom(format_args!("size {number} must be at most {MAX_SIZE}, or clients cannot read it")));
        }
        self.scalar(self.shape == Shape::Size, Unexpected::Unsigned(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.scalar(false, Unexpected::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.scalar(self.shape == Shape::Text, Unexpected::Str(text))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        // serde would read an array as the members of an object in the order of their declaration.
        let Some(shape) = self.shape.elements() else {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        };
        let element = Walk { shape, depth: self.inside()? };
        while array.next_element_seed(element)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        if !self.shape.may_be_object() {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        }
        let (depth, mut seen) = (self.inside()?, Vec::new());
        while let Some(name) = object.next_key::<String>()? {
            let shape = self.member(&name, &mut seen)?;
            object.next_value_seed(Walk { shape, depth })?;
        }
        Ok(())
    }
}

/// Whether Go takes one name for the other.
fn go_equal(one: &str, other: &str) -> bool {
    one.chars().map(go_fold).eq(other.chars().map(go_fold))
}

/// The folding of `encoding/json`, as far as its result is ASCII, which all known names are: besides
/// the case of letters, Unicode's simple folding maps two other characters to ASCII.
fn go_fold(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests;
