//! What callers of the store rely on.

mod basics;
mod restart;
mod room;
