//! What the resident part tells.

use std::fmt;

use serde::Serialize;

use super::flow::{clock, wall_clock};

/// How much the resident part tells: of each level, those above it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What cannot be repaired.
    Error,
    /// What was not as recorded, and what is worth knowing.
    Warn,
    /// What was done about it.
    Info,
    /// What happened around the instance, and each look at it.
    Debug,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// What the resident part tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    /// It is at work.
    Started,
    /// It ends; everything stays as it is.
    Stopping,
    /// Files were applied.
    Applied,
    /// Files could not be applied: everything is as it was.
    Refused,
    /// It was told to look at everything.
    Reloading,
    /// Something was not as recorded.
    Noticed,
    /// A step was done.
    Repaired,
    /// Something cannot be repaired. It is tried again, and said once.
    Failed,
    /// What could not be repaired is as recorded again.
    Recovered,
    /// Something worth knowing.
    Note,
    /// Flows ended with an address of the host's.
    Forgotten,
    /// A command has the instance for so long that looks at it wait.
    Waiting,
    /// Something happened around the instance.
    Heard,
    /// The instance was looked at.
    Looked,
}

impl News {
    /// The level at which it is told.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Failed | Self::Refused => Level::Error,
            Self::Noticed | Self::Recovered | Self::Note | Self::Waiting => Level::Warn,
            Self::Started
            | Self::Stopping
            | Self::Applied
            | Self::Reloading
            | Self::Repaired
            | Self::Forgotten => Level::Info,
            Self::Heard | Self::Looked => Level::Debug,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopping => "stopping",
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Reloading => "reloading",
            Self::Noticed => "noticed",
            Self::Repaired => "repaired",
            Self::Failed => "failed",
            Self::Recovered => "recovered",
            Self::Note => "note",
            Self::Forgotten => "forgotten",
            Self::Waiting => "waiting",
            Self::Heard => "heard",
            Self::Looked => "looked",
        }
    }
}

/// Something that the resident part tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunEvent {
    /// [`super::VERSION`].
    pub version: u32,
    /// Seconds since 1970.
    pub time: f64,
    /// The level at which it is told.
    pub level: Level,
    /// What it tells of.
    pub event: News,
    /// The part of the instance that it is about, `null` if it is about no particular one.
    pub object: Option<String>,
    /// The kind of that part.
    pub kind: Option<&'static str>,
    /// What there is to say.
    pub text: String,
    /// Seconds after which it is tried again, of what cannot be repaired.
    pub retry: Option<f64>,
}

impl RunEvent {
    /// News of no particular part.
    #[must_use]
    pub fn new(event: News, text: String) -> Self {
        let (version, time, level) = (super::VERSION, wall_clock(), event.level());
        Self { version, time, level, event, object: None, kind: None, text, retry: None }
    }

    /// The same news, of a part of the instance.
    #[must_use]
    pub fn of(self, kind: &'static str, object: String) -> Self {
        Self { object: Some(object), kind: Some(kind), ..self }
    }

    /// The same news, and when it is tried again, in seconds.
    #[must_use]
    pub fn again_in(self, retry: f64) -> Self {
        Self { retry: Some(retry), ..self }
    }
}

impl fmt::Display for RunEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:<9} ", clock(self.time), self.event.name())?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.text)?;
        self.retry.map_or(Ok(()), |retry| write!(f, "; tried again in {retry} s"))
    }
}
