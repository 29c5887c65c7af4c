//! Floor 1: what the researcher reads, from the web and from attached files.
//!
//! Pages come from strangers and may be asked for by strangers, so this room is mostly about bounds: whom we ask
//! (`policy.rs`, `address.rs`), that nobody else is asked in their place (`net.rs`), how much is read and for how long
//! (`fetch.rs`, `gather.rs`), and that no text, however made, costs more than a moment (`html.rs`, `search.rs`). What is
//! read is material for a model and never an instruction to anybody.

mod address;
mod content;
mod fetch;
mod folder;
mod gather;
mod html;
mod links;
mod net;
mod policy;
mod search;
mod words;

pub use self::address::{Kind, kind_of};
pub use self::content::{Link, Text};
pub use self::fetch::{Fetcher, PAGE_BYTES_MAX, Page, REDIRECTS_MAX};
pub use self::folder::{Collected, LeftOut, Links, collect, is_binary, read_still};
pub use self::gather::{Gathered, LINKS_MAX, NotRead, PAGES_BYTES_MAX, Sources, URLS_MAX, Wanted, Web};
pub use self::net::{Internet, Net};
pub use self::policy::{ALLOWED_MAX, Allowed, Policy, Target, URL_CHARS_MAX};
pub use self::search::{Excerpt, Passage, condensed, excerpts};
pub use self::words::words_of;
