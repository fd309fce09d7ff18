//! Sizes of aggregates, which Debian 12's `ip` does not know for IPv4.

use netlink_packet_route::link::LinkAttribute;
use nix::net::if_::if_nametoindex;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use tokio::runtime::Builder;

use super::Netns;

impl Netns {
    /// Lets an interface be handed so many bytes of either family at once (BIG TCP, if more than 65,536).
    ///
    /// # Panics
    /// When it cannot be.
    #[track_caller]
    pub fn set_gso(&self, interface: &str, bytes: u32) {
        let result = self.enter(|| {
            let index = if_nametoindex(interface)?;
            Builder::new_current_thread().enable_io().build()?.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                let sizes = LinkMessageBuilder::<LinkUnspec>::new()
                    .index(index)
                    .append_extra_attribute(LinkAttribute::GsoMaxSize(bytes))
                    .append_extra_attribute(LinkAttribute::GsoIpv4MaxSize(bytes))
                    .build();
                anyhow::Ok(handle.link().set(sizes).execute().await?)
            })
        });
        result.unwrap_or_else(|e| panic!("{interface} in {} for {bytes} bytes at once: {e}", self.name()));
    }
}
