//! Queueing disciplines of any kind and their classes: what they have in common, and the options of those that shape
//! what cgroups send, which the netlink crates do not know.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use nix::libc;
use rtnetlink::packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, Nla as _, NlasIterator};

use super::{Netlink, Result};

/// `TCA_OPTIONS`.
const OPTIONS: u16 = 2;
/// `TC_LINKLAYER_ETHERNET`: packets have the length they have.
const ETHERNET: u8 = 1;
/// A unit of the kernel's time is so many nanoseconds, as a power of 2 (`PSCHED_SHIFT`).
const TIME_SHIFT: u32 = 6;

/// A queueing discipline that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Discipline {
    pub(in crate::kernel) kind: String,
    pub(in crate::kernel) handle: TcHandle,
    pub(in crate::kernel) parent: TcHandle,
    /// What it says of itself, as its kind has it.
    options: Vec<u8>,
}

impl Discipline {
    /// Bytes that may wait in a plain queue (`bfifo`: `struct tc_fifo_qopt`).
    pub(in crate::kernel) fn queue(&self) -> Option<u32> {
        (self.kind == BFIFO).then(|| word(&self.options, 0)).flatten()
    }
}

/// A plain queue that counts bytes.
pub(in crate::kernel) const BFIFO: &str = "bfifo";
/// The queueing discipline that keeps packets until they are to leave.
pub(in crate::kernel) const FQ: &str = "fq";
/// The one with classes.
pub(in crate::kernel) const HTB: &str = "htb";
/// The one with one for each of several hardware queues.
pub(in crate::kernel) const MQ: &str = "mq";

/// A discipline to be made.
pub(in crate::kernel) enum Made {
    /// `fq`, which is to keep whatever the program lets it wait.
    Fq,
    /// `htb` without classes: what is in none is not shaped.
    Htb,
    Mq,
    /// A plain queue of so many bytes.
    Bfifo(u32),
}

impl Made {
    fn attributes(&self) -> Vec<TcAttribute> {
        // `TCA_FQ_PLIMIT` and `TCA_FQ_FLOW_PLIMIT`: packets that may wait in all and of one socket. The program bounds
        // the time; as many packets as that are of the fastest rates are not to be dropped here.
        const FQ_LIMIT: (u16, u32) = (1, 200_000);
        const FQ_FLOW_LIMIT: (u16, u32) = (2, 50_000);
        /// `TCA_HTB_INIT`: a `struct tc_htb_glob` of version 3, by which classes without a quantum of their own would
        /// get one, and the class of what is in none: none.
        const HTB_INIT: u16 = 2;
        let other =
            |(kind, value): (u16, u32)| TcOption::Other(DefaultNla::new(kind, value.to_ne_bytes().to_vec()));
        let (kind, options) = match self {
            Self::Fq => (FQ, TcAttribute::Options(vec![other(FQ_LIMIT), other(FQ_FLOW_LIMIT)])),
            Self::Htb => {
                let init = [3_u32, 10, 0, 0, 0].map(u32::to_ne_bytes).concat();
                (HTB, TcAttribute::Options(vec![TcOption::Other(DefaultNla::new(HTB_INIT, init))]))
            }
            Self::Mq => return vec![TcAttribute::Kind(MQ.to_owned())],
            Self::Bfifo(bytes) => {
                (BFIFO, TcAttribute::Other(DefaultNla::new(OPTIONS, bytes.to_ne_bytes().to_vec())))
            }
        };
        vec![TcAttribute::Kind(kind.to_owned()), options]
    }
}

/// A rate, and what may exceed it for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct HtbRate {
    /// Bytes in a second; not 0.
    pub(in crate::kernel) rate: u32,
    /// Bytes that may be sent at once.
    pub(in crate::kernel) burst: u32,
}

impl HtbRate {
    /// How long the burst takes at the rate, in units of the kernel's time.
    fn time(self) -> u32 {
        let nanoseconds = u64::from(self.burst) * 1_000_000_000 / u64::from(self.rate.max(1));
        u32::try_from(nanoseconds >> TIME_SHIFT).unwrap_or(u32::MAX)
    }

    fn of(rate: u32, time: u32) -> Self {
        let nanoseconds = u128::from(time) << TIME_SHIFT;
        let burst = nanoseconds * u128::from(rate) / 1_000_000_000;
        Self { rate, burst: u32::try_from(burst).unwrap_or(u32::MAX) }
    }

    /// Whether it is what was asked for, as far as the kernel can say: it keeps the burst as a time.
    fn is_like(self, asked: Self) -> bool {
        self.rate == asked.rate && self.burst.abs_diff(asked.burst) <= 512 + asked.burst / 512
    }
}

/// A class of `htb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct HtbClass {
    pub(in crate::kernel) handle: TcHandle,
    pub(in crate::kernel) parent: TcHandle,
    /// What it gets, whatever the classes around it have left.
    pub(in crate::kernel) assured: HtbRate,
    /// What it gets at most: beyond what is assured, the classes around it must have something to lend.
    pub(in crate::kernel) ceil: HtbRate,
}

impl HtbClass {
    /// `TCA_HTB_PARMS`: a `struct tc_htb_opt`.
    const PARAMETERS: u16 = 1;
    const LENGTH: usize = 44;
    /// Where the rates stand: what it gets, and what it may borrow up to.
    const RATES_AT: [usize; 2] = [0, 12];
    /// Where the times stand that the bursts of both take.
    const TIMES_AT: [usize; 2] = [24, 28];
    /// Where the bytes stand that it sends in its turn among others.
    const QUANTUM_AT: usize = 32;

    fn options(&self) -> TcOption {
        // A large packet that is to be cut up later. Said whatever the rates are: the kernel would reckon it from the
        // assured one, which may be next to nothing.
        const QUANTUM: u32 = 65_536;
        let mut parameters = vec![0; Self::LENGTH];
        let buckets = [self.assured, self.ceil];
        for ((bucket, rate_at), time_at) in buckets.into_iter().zip(Self::RATES_AT).zip(Self::TIMES_AT) {
            // A `struct tc_ratespec`.
            parameters[rate_at + 1] = ETHERNET;
            parameters[rate_at + 8..rate_at + 12].copy_from_slice(&bucket.rate.to_ne_bytes());
            parameters[time_at..time_at + 4].copy_from_slice(&bucket.time().to_ne_bytes());
        }
        parameters[Self::QUANTUM_AT..Self::QUANTUM_AT + 4].copy_from_slice(&QUANTUM.to_ne_bytes());
        TcOption::Other(DefaultNla::new(Self::PARAMETERS, parameters))
    }

    fn of(message: &TcMessage) -> Option<Self> {
        let options = options(message);
        let mut attributes = NlasIterator::new(options.as_slice()).filter_map(std::result::Result::ok);
        let parameters = attributes.find(|attribute| attribute.kind() == Self::PARAMETERS)?;
        let parameters = parameters.value();
        let bucket = |nth: usize| {
            let (rate, time) =
                (word(parameters, Self::RATES_AT[nth] + 8)?, word(parameters, Self::TIMES_AT[nth])?);
            Some(HtbRate::of(rate, time))
        };
        let handle = message.header.handle;
        // The kernel says that of a class that is in no other.
        let parent = match message.header.parent {
            TcHandle::ROOT => TcHandle { major: handle.major, minor: 0 },
            parent => parent,
        };
        Some(Self { handle, parent, assured: bucket(0)?, ceil: bucket(1)? })
    }

    /// Whether it is what was asked for, as far as the kernel can say.
    pub(in crate::kernel) fn is_like(self, asked: Self) -> bool {
        let is_there = self.handle == asked.handle && self.parent == asked.parent;
        is_there && self.assured.is_like(asked.assured) && self.ceil.is_like(asked.ceil)
    }
}

impl Netlink {
    /// Whether the kernel has this discipline. It is asked for one with options that make no sense, and says that, or that
    /// it does not know what is asked for; it makes none in either case.
    pub(in crate::kernel) async fn has_discipline(&self, kind: &str) -> Result<bool> {
        const LOOPBACK: u32 = 1;
        // `TCA_FQ_BUCKETS_LOG`: it cannot be 0. `htb` misses its own.
        const FQ_BUCKETS: u16 = 8;
        let mut message = message(LOOPBACK, TcHandle::UNSPEC, TcHandle::ROOT);
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        if kind == FQ {
            let buckets = TcOption::Other(DefaultNla::new(FQ_BUCKETS, vec![0; 4]));
            message.attributes.push(TcAttribute::Options(vec![buckets]));
        }
        match self.command(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE).await {
            Err(error) if error.is(libc::ENOENT) => Ok(false),
            Err(error) if error.is(libc::EINVAL) => Ok(true),
            done => done.map(|()| true),
        }
    }

    /// The queueing disciplines of an interface, those of the kernel's own choice included.
    pub(in crate::kernel) async fn disciplines(&self, index: u32) -> Result<Vec<Discipline>> {
        let request = message(index, TcHandle::UNSPEC, TcHandle::UNSPEC);
        let answer = self.request(RouteNetlinkMessage::GetQueueDiscipline(request), NLM_F_DUMP).await?;
        let of_interface = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewQueueDiscipline(message)
                if message.header.index == index.cast_signed() =>
            {
                Some(message)
            }
            _ => None,
        });
        let discipline = |message: TcMessage| Discipline {
            kind: kind(&message),
            handle: message.header.handle,
            parent: message.header.parent,
            options: options(&message),
        };
        Ok(of_interface.map(discipline).collect())
    }

    /// Gives an interface, or a class or a queue of it, a discipline in place of what is there; changes one that has the
    /// handle already.
    pub(in crate::kernel) async fn set_discipline(
        &self,
        index: u32,
        (handle, parent): (TcHandle, TcHandle),
        made: &Made,
    ) -> Result<()> {
        let mut message = message(index, handle, parent);
        message.attributes = made.attributes();
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.command(RouteNetlinkMessage::NewQueueDiscipline(message), flags).await
    }

    /// Takes an interface's discipline with this handle away, with all that is in it: it gets back what the kernel gives
    /// it by itself.
    pub(in crate::kernel) async fn remove_discipline(&self, index: u32, handle: TcHandle) -> Result<()> {
        let message = message(index, handle, TcHandle::ROOT);
        self.command(RouteNetlinkMessage::DelQueueDiscipline(message), 0).await
    }

    /// The classes of an interface's `htb`.
    pub(in crate::kernel) async fn htb_classes(&self, index: u32) -> Result<Vec<HtbClass>> {
        let request = message(index, TcHandle::UNSPEC, TcHandle::UNSPEC);
        let answer = self.request(RouteNetlinkMessage::GetTrafficClass(request), NLM_F_DUMP).await?;
        let class = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewTrafficClass(message) if kind(message) == HTB => HtbClass::of(message),
            _ => None,
        };
        Ok(answer.iter().filter_map(class).collect())
    }

    /// Makes a class, or changes the one that is there; its parent stays.
    pub(in crate::kernel) async fn set_htb_class(&self, index: u32, class: HtbClass) -> Result<()> {
        let mut message = message(index, class.handle, class.parent);
        message.attributes =
            vec![TcAttribute::Kind(HTB.to_owned()), TcAttribute::Options(vec![class.options()])];
        self.command(RouteNetlinkMessage::NewTrafficClass(message), NLM_F_CREATE).await
    }

    /// Takes a class away that has none below it.
    pub(in crate::kernel) async fn remove_htb_class(&self, index: u32, class: HtbClass) -> Result<()> {
        let message = message(index, class.handle, class.parent);
        self.command(RouteNetlinkMessage::DelTrafficClass(message), 0).await
    }
}

fn message(index: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

fn kind(message: &TcMessage) -> String {
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    });
    kind.unwrap_or_default()
}

/// What a message says of a kind that the netlink crates do not know: they read it as a single option.
fn options(message: &TcMessage) -> Vec<u8> {
    let all = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => match &options[..] {
            [TcOption::Other(all)] => Some(all),
            _ => None,
        },
        TcAttribute::Other(all) if all.kind() == OPTIONS => Some(all),
        _ => None,
    });
    all.map_or_else(Vec::new, |all| {
        let mut bytes = vec![0; all.value_len()];
        all.emit_value(&mut bytes);
        bytes
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};

    use super::*;

    /// The message as the kernel would say it.
    fn round_trip(message: RouteNetlinkMessage) -> RouteNetlinkMessage {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).expect("a message");
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            panic!("another message: {message:?}");
        };
        message
    }

    #[test]
    fn a_class_is_read_as_it_was_asked_for() {
        let (handle, parent) = (TcHandle { major: 7, minor: 3 }, TcHandle { major: 7, minor: 2 });
        let next_to_nothing = HtbRate { rate: 1, burst: 0 };
        for (rate, burst) in [(1_000, 8_192), (6_250_000, 31_250), (4_000_000_000, 20_000_000)] {
            let ceil = HtbRate { rate, burst };
            for assured in [ceil, next_to_nothing] {
                let class = HtbClass { handle, parent, assured, ceil };
                let mut message = message(4, handle, parent);
                message.attributes =
                    vec![TcAttribute::Kind(HTB.to_owned()), TcAttribute::Options(vec![class.options()])];
                let RouteNetlinkMessage::NewTrafficClass(message) =
                    round_trip(RouteNetlinkMessage::NewTrafficClass(message))
                else {
                    panic!("another message");
                };
                let found = HtbClass::of(&message).expect("a class");
                assert!(found.is_like(class), "{found:?}");
                let (faster, longer) =
                    (HtbRate { rate: rate + 1, burst }, HtbRate { rate, burst: burst * 2 });
                for other in [faster, longer] {
                    assert!(!found.is_like(HtbClass { ceil: other, ..class }));
                    assert!(!found.is_like(HtbClass { assured: other, ..class }));
                }
                assert!(!found.is_like(HtbClass { parent: handle, ..class }));
            }
            let [own, lent] =
                [ceil, next_to_nothing].map(|assured| HtbClass { handle, parent, assured, ceil });
            assert!(!own.is_like(lent) && !lent.is_like(own));
        }
    }

    #[test]
    fn a_plain_queue_says_its_bytes() {
        let mut message = message(4, TcHandle::UNSPEC, TcHandle::ROOT);
        message.attributes = Made::Bfifo(300_000).attributes();
        let RouteNetlinkMessage::NewQueueDiscipline(message) =
            round_trip(RouteNetlinkMessage::NewQueueDiscipline(message))
        else {
            panic!("another message");
        };
        let (handle, parent) = (message.header.handle, message.header.parent);
        let found = Discipline { kind: kind(&message), handle, parent, options: options(&message) };
        assert_eq!(found.queue(), Some(300_000));
        assert_eq!(Discipline { kind: FQ.to_owned(), ..found.clone() }.queue(), None);
        assert_eq!(Discipline { options: vec![1], ..found }.queue(), None);
    }
}
