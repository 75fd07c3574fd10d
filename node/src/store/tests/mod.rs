//! The guarantees of the store.

mod basics;
mod changed;
mod damage;
mod replaced;
mod restart;
mod room;
mod scrub;
