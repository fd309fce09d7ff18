//! Queueing disciplines: the token bucket filter, whose options the netlink crates do not know.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use nix::libc;
use rtnetlink::packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, Nla as _, NlasIterator};

use super::{Netlink, Result};

const KIND: &str = "tbf";
/// `TCA_TBF_PARMS`: a `struct tc_tbf_qopt`.
const PARAMETERS: u16 = 1;
/// `TCA_TBF_BURST`: bytes that may be sent at once.
const BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: packets have the length they have.
const ETHERNET: u8 = 1;
/// Length of `struct tc_tbf_qopt`: two of `struct tc_ratespec`, then limit, buffer and MTU.
const PARAMETERS_LENGTH: usize = 36;
/// Where the overhead stands in it, two bytes.
const OVERHEAD_AT: usize = 2;
/// Where the rate stands.
const RATE_AT: usize = 8;
/// Where the limit stands.
const LIMIT_AT: usize = 24;
/// Where the kernel says the burst, as the time that it takes.
const TIME_AT: usize = 28;
/// A unit of that time is so many nanoseconds, as a power of 2 (`PSCHED_SHIFT`).
const TIME_SHIFT: u32 = 6;

/// A token bucket filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct TokenBucket {
    /// Bytes in a second.
    pub(in crate::kernel) rate: u32,
    /// Bytes that each packet is charged beside its own.
    pub(in crate::kernel) overhead: u16,
    /// Bytes of packets that may wait.
    pub(in crate::kernel) limit: u32,
    /// Bytes that may be sent at once, the overhead of one packet apart.
    pub(in crate::kernel) burst: u32,
}

impl TokenBucket {
    fn options(self) -> Vec<TcOption> {
        let mut parameters = vec![0; PARAMETERS_LENGTH];
        parameters[1] = ETHERNET;
        parameters[OVERHEAD_AT..OVERHEAD_AT + 2].copy_from_slice(&self.overhead.to_ne_bytes());
        parameters[RATE_AT..RATE_AT + 4].copy_from_slice(&self.rate.to_ne_bytes());
        parameters[LIMIT_AT..LIMIT_AT + 4].copy_from_slice(&self.limit.to_ne_bytes());
        let other = |kind, value| TcOption::Other(DefaultNla::new(kind, value));
        vec![other(PARAMETERS, parameters), other(BURST, self.burst.to_ne_bytes().to_vec())]
    }

    /// Whether it is what was asked for, as far as the kernel can say: it keeps the burst as a time.
    pub(in crate::kernel) fn is_like(self, asked: Self) -> bool {
        let close = self.burst.abs_diff(asked.burst) <= 512 + asked.burst / 512;
        close && Self { burst: asked.burst, ..self } == asked
    }

    /// What a message says of one.
    fn of(message: &TcMessage) -> Option<Self> {
        if !message.attributes.contains(&TcAttribute::Kind(KIND.to_owned())) {
            return None;
        }
        message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Self::from_options(options),
            _ => None,
        })
    }

    /// What the kernel says of one.
    ///
    /// What is asked with one attribute for each option is read as a single one that holds them all.
    fn from_options(options: &[TcOption]) -> Option<Self> {
        let [TcOption::Other(all)] = options else { return None };
        let mut bytes = vec![0; all.value_len()];
        all.emit_value(&mut bytes);
        let mut attributes = NlasIterator::new(bytes.as_slice()).filter_map(std::result::Result::ok);
        let parameters = attributes.find(|attribute| attribute.kind() == PARAMETERS)?;
        let parameters = parameters.value();
        let word = |at: usize| Some(u32::from_ne_bytes(*parameters.get(at..)?.first_chunk()?));
        let overhead = u16::from_ne_bytes(*parameters.get(OVERHEAD_AT..)?.first_chunk()?);
        let (rate, time) = (word(RATE_AT)?, u64::from(word(TIME_AT)?) << TIME_SHIFT);
        let bytes = u128::from(time) * u128::from(rate) / 1_000_000_000;
        let burst = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_sub(overhead.into());
        Some(Self { rate, overhead, limit: word(LIMIT_AT)?, burst })
    }
}

impl Netlink {
    /// Whether the kernel has token bucket filters. It is asked for one without a rate: it then says that this makes no
    /// sense, or that it does not know what is asked for, and makes none in either case.
    pub(in crate::kernel) async fn has_token_bucket(&self) -> Result<bool> {
        const LOOPBACK: u32 = 1;
        let message = discipline(LOOPBACK, TcHandle::UNSPEC, Vec::new());
        match self.command(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE).await {
            Err(error) if error.is(libc::ENOENT) => Ok(false),
            Err(error) if error.is(libc::EINVAL) => Ok(true),
            done => done.map(|()| true),
        }
    }

    /// The token bucket filter of an interface, if it has one; only that with this handle if one is given.
    pub(in crate::kernel) async fn token_bucket(
        &self,
        index: u32,
        handle: Option<TcHandle>,
    ) -> Result<Option<TokenBucket>> {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        let answer = self.request(RouteNetlinkMessage::GetQueueDiscipline(message), NLM_F_DUMP).await?;
        let of_interface = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewQueueDiscipline(message) => Some(message),
            _ => None,
        });
        let root = of_interface
            .filter(|message| message.header.index == index.cast_signed())
            .find(|message| message.header.parent == TcHandle::ROOT)
            .filter(|message| handle.is_none_or(|handle| message.header.handle == handle));
        let Some(root) = root else { return Ok(None) };
        Ok(TokenBucket::of(&root))
    }

    /// Takes an interface's token bucket filter with this handle away: it gets back what the kernel gives it by itself.
    pub(in crate::kernel) async fn remove_token_bucket(&self, index: u32, handle: TcHandle) -> Result<()> {
        let message = discipline(index, handle, Vec::new());
        self.command(RouteNetlinkMessage::DelQueueDiscipline(message), 0).await
    }

    /// Gives an interface a token bucket filter, in place of what it has. Without a handle the kernel chooses one.
    pub(in crate::kernel) async fn set_token_bucket(
        &self,
        index: u32,
        handle: Option<TcHandle>,
        bucket: TokenBucket,
    ) -> Result<()> {
        let handle = handle.unwrap_or(TcHandle::UNSPEC);
        let message = discipline(index, handle, vec![TcAttribute::Options(bucket.options())]);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.command(RouteNetlinkMessage::NewQueueDiscipline(message), flags).await
    }
}

/// A message about the token bucket filter of an interface.
fn discipline(index: u32, handle: TcHandle, options: Vec<TcAttribute>) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.handle = handle;
    message.header.index = index.cast_signed();
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![TcAttribute::Kind(KIND.to_owned())];
    message.attributes.extend(options);
    message
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};

    use super::*;

    const BUCKET: TokenBucket = TokenBucket { rate: 1_000_000, overhead: 300, limit: 5_000, burst: 2_000 };

    /// What is read of a message with these options.
    fn read(options: Vec<TcOption>) -> Option<TokenBucket> {
        let message = discipline(4, TcHandle::UNSPEC, vec![TcAttribute::Options(options)]);
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).expect("a message");
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewQueueDiscipline(message)) = message.payload
        else {
            panic!("another message: {message:?}");
        };
        TokenBucket::of(&message)
    }

    #[test]
    fn what_is_asked_for_is_what_is_read() {
        // 2,300 bytes with the overhead take 2.3 ms, in units of 64 ns.
        let time = 2_300_000_u32 >> TIME_SHIFT;
        let mut parameters = vec![0; PARAMETERS_LENGTH];
        BUCKET.options()[0].emit_value(&mut parameters);
        parameters[TIME_AT..TIME_AT + 4].copy_from_slice(&time.to_ne_bytes());
        let found = read(vec![TcOption::Other(DefaultNla::new(PARAMETERS, parameters))]).expect("a filter");
        assert!(found.is_like(BUCKET), "{found:?}");
        for other in [
            TokenBucket { rate: 1_000_001, ..BUCKET },
            TokenBucket { overhead: 0, ..BUCKET },
            TokenBucket { limit: 5_001, ..BUCKET },
            TokenBucket { burst: 4_000, ..BUCKET },
        ] {
            assert!(!found.is_like(other), "{other:?}");
        }
    }

    #[test]
    fn options_that_are_cut_short_are_none() {
        assert_eq!(read(vec![TcOption::Other(DefaultNla::new(PARAMETERS, vec![0; LIMIT_AT + 3]))]), None);
        assert_eq!(read(Vec::new()), None);
    }
}
