//! The XDP program of an uplink, by a pinned link: `links/xdp_uplink@INTERFACE`.
//!
//! An interface has one XDP program, or one behind a dispatcher: somebody else's stays, and is named.

use std::io;
use std::path::PathBuf;

use aya::programs::links::FdLink;
use aya::programs::xdp::{XdpError, XdpLink};
use aya::programs::{ProgramError, ProgramInfo, Xdp, XdpMode, loaded_programs};
use aya::sys::SyscallError;
use nix::libc;
use vnet_common::Hook;

use super::attachment::open_link;
use super::error::Error;
use super::netlink::{AttachedXdp, Netlink};
use super::pins;
use super::programs::{self, Place};
use crate::instance::Instance;
use crate::plan::State;

/// The XDP program of an interface of an instance.
#[derive(Clone, Copy)]
pub(super) struct XdpAttachment<'a> {
    pub(super) instance: &'a Instance,
    pub(super) interface: &'a str,
    /// Whether the host's stack runs it instead of the driver.
    pub(super) generic: bool,
}

impl XdpAttachment<'_> {
    fn pin(&self) -> PathBuf {
        self.instance.link_pin(Hook::XdpUplink.name(), self.interface)
    }

    /// Whether there is one.
    pub(super) fn is_pinned(&self) -> bool {
        self.pin().exists()
    }

    fn program(&self) -> PathBuf {
        self.instance.program_pin(Hook::XdpUplink.name())
    }

    /// How it stands. A link whose interface went away stays pinned without doing anything, so what counts is what the
    /// kernel says of the interface of that name now.
    pub(super) async fn state(&self, netlink: &Netlink) -> Result<State, Error> {
        if open_link(&self.pin())?.is_none() {
            return Ok(State::Absent);
        }
        let wanted = match ProgramInfo::from_pin(self.program()) {
            Ok(program) => program.id(),
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
                return Ok(State::Differs(format!("program {} is not loaded any more", self.name())));
            }
            Err(source) => {
                return Err(Error::OpenProgram { pin: self.program(), source: Box::new(source) });
            }
        };
        Ok(match self.attached(netlink).await? {
            None => State::Differs(format!("{} has no XDP program any more", self.interface)),
            Some(AttachedXdp { program, .. }) if program != wanted => {
                State::Differs(format!("{} has another XDP program", self.interface))
            }
            Some(AttachedXdp { generic, .. }) if generic != self.generic => {
                State::Differs(format!("{} runs it in {} mode", self.interface, mode_name(generic)))
            }
            Some(_) => State::Present,
        })
    }

    /// Attaches the program. The mode of one that is attached already cannot be changed in place.
    pub(super) async fn create(&self, netlink: &Netlink) -> Result<(), Error> {
        if self.state(netlink).await? == State::Present {
            return Ok(());
        }
        let mut program = programs::xdp(self.instance, Hook::XdpUplink)?;
        self.remove()?;
        let mode = if self.generic { XdpMode::Skb } else { XdpMode::Driver };
        match program.attach(self.interface, mode) {
            Ok(id) => {
                let link = program.take_link(id).map_err(|source| self.refused(source))?;
                pin_link(link, self.pin())
            }
            Err(source) => Err(self.explain(source, netlink).await),
        }
    }

    /// Detaches the program, and nothing else.
    pub(super) fn remove(&self) -> Result<(), Error> {
        pins::detach(&self.pin())
    }

    /// Gives the interface another program, in place, and pins it in another set. One that is attached no more is left
    /// out of that set.
    pub(super) fn exchange(&self, new: &Place<'_>, program: &mut Xdp) -> Result<(), Error> {
        match self.exchange_link(program)? {
            Some(link) => pin_link(link, new.path(&self.pin())),
            None => Ok(()),
        }
    }

    /// Gives the interface a program of the set in use again, after another set's has taken its place.
    pub(super) fn exchange_back(&self, program: &mut Xdp) -> Result<(), Error> {
        // It is pinned, and stays when this descriptor of it is closed.
        self.exchange_link(program).map(drop)
    }

    /// Gives the pinned link another program; `None` if there is no link, or its interface is gone.
    fn exchange_link(&self, program: &mut Xdp) -> Result<Option<XdpLink>, Error> {
        let Some(link) = open_link(&self.pin())? else { return Ok(None) };
        let link = XdpLink::try_from(link).map_err(|source| Error::OpenLink { pin: self.pin(), source })?;
        match program.attach_to_link(link) {
            Ok(id) => program.take_link(id).map(Some).map_err(|source| self.refused(source)),
            Err(source) if errno(&source) == Some(libc::ENOLINK) => Ok(None),
            Err(source) => Err(self.refused(source)),
        }
    }

    async fn attached(&self, netlink: &Netlink) -> Result<Option<AttachedXdp>, Error> {
        let link = netlink.link(self.interface).await;
        let link =
            link.map_err(|source| Error::ReadInterface { interface: self.interface.to_owned(), source })?;
        Ok(link.and_then(|link| link.xdp))
    }

    /// Why it could not be attached.
    async fn explain(&self, source: ProgramError, netlink: &Netlink) -> Error {
        let interface = self.interface.to_owned();
        // What the interface has says more than the error number: another mode is refused with one of its own.
        if let Ok(Some(other)) = self.attached(netlink).await {
            return Error::OtherXdp { interface, other: describe(other) };
        }
        match errno(&source) {
            Some(libc::ENODEV) => Error::NoInterface { interface },
            Some(libc::EOPNOTSUPP) if !self.generic => Error::NoNativeXdp { interface },
            _ => self.refused(source),
        }
    }

    fn refused(&self, source: ProgramError) -> Error {
        let interface = self.interface.to_owned();
        match source {
            ProgramError::UnknownInterface { .. } => Error::NoInterface { interface },
            source if self.generic => {
                Error::Attach { program: self.name(), interface, source: Box::new(source) }
            }
            source => Error::NativeXdp { interface, source: Box::new(source) },
        }
    }

    const fn name(&self) -> &'static str {
        Hook::XdpUplink.name()
    }
}

const fn mode_name(generic: bool) -> &'static str {
    if generic { "generic" } else { "native" }
}

/// A program that is attached, for people.
fn describe(AttachedXdp { program, generic }: AttachedXdp) -> String {
    let known = loaded_programs().filter_map(Result::ok).find(|info| info.id() == program);
    let name = known.as_ref().and_then(ProgramInfo::name_as_str).unwrap_or("of an unknown name");
    format!("{name}, number {program}, in {} mode", mode_name(generic))
}

/// The error number that attaching failed with, whichever way it was tried.
fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}

fn pin_link(link: XdpLink, pin: PathBuf) -> Result<(), Error> {
    let link = FdLink::try_from(link).map_err(|source| Error::OpenLink { pin: pin.clone(), source })?;
    programs::pin(pin, |pin| link.pin(pin).map(drop))
}
