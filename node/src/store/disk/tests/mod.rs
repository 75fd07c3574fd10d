//! What callers of the store rely on.

mod basics;
mod changed;
mod damage;
mod replaced;
mod restart;
mod room;
mod scrub;
