//! Who sent a request, for the handlers.

use entrepot_access::{Caller, Client, Policy};
use entrepot_runtime::share::Holder;
use std::net::IpAddr;
use std::sync::Arc;

/// Who sent a request.
pub struct Requester {
    /// The access control under which the request is handled. `None` if every client may do
    /// everything.
    pub policy: Option<Arc<Policy>>,
    /// The client.
    pub client: Client,
    /// The address of the client.
    pub address: IpAddr,
}

impl Requester {
    /// To whom places and sessions are charged: the identity, or the network of an anonymous client.
    pub fn holder(&self) -> Holder {
        match &self.client.caller {
            Caller::Known(identity) => Holder::of_identity(&format!("{}:{}", identity.via, identity.name)),
            Caller::Anonymous => Holder::of_address(self.address),
        }
    }
}
