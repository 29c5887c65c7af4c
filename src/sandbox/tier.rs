//! Which wall stands between untrusted code and the machine: what was asked for, and what was found.

use std::fmt;
use std::str::FromStr;

/// What the operator asked for (`OARLOCK_SANDBOX`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The strongest tier that works here: bwrap, then landlock, else none.
    #[default]
    Auto,
    /// Only bubblewrap.
    Bwrap,
    /// Only Landlock.
    Landlock,
    /// No wall at all. Only for machines that hold nothing worth stealing.
    Off,
}

/// The wall in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Own namespaces through bubblewrap, plus seccomp, resource limits and the watchdog.
    Bwrap,
    /// Landlock, plus seccomp, resource limits and the watchdog.
    Landlock,
    /// Resource limits and the watchdog only.
    Off,
}

/// A word that names no choice.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown sandbox {word:?}: use auto, bwrap, landlock or off")]
pub struct UnknownChoice {
    word: String,
}

impl Choice {
    /// The tiers to try, best first.
    pub(super) fn tiers(self) -> &'static [Tier] {
        match self {
            Choice::Auto => &[Tier::Bwrap, Tier::Landlock],
            Choice::Bwrap => &[Tier::Bwrap],
            Choice::Landlock => &[Tier::Landlock],
            Choice::Off => &[Tier::Off],
        }
    }
}

impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Choice::Auto),
            "bwrap" => Ok(Choice::Bwrap),
            "landlock" => Ok(Choice::Landlock),
            "off" => Ok(Choice::Off),
            _ => Err(UnknownChoice { word: word.to_owned() }),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Choice::Auto => "auto",
            Choice::Bwrap => "bwrap",
            Choice::Landlock => "landlock",
            Choice::Off => "off",
        })
    }
}

impl Tier {
    /// The tier with this name, as [`fmt::Display`] writes it.
    pub(super) fn named(word: &str) -> Option<Tier> {
        [Tier::Bwrap, Tier::Landlock, Tier::Off].into_iter().find(|tier| tier.to_string() == word)
    }

    /// What to do when this tier does not work here.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Tier::Bwrap => {
                "install it (apt-get install bubblewrap) and allow unprivileged user namespaces (on Ubuntu, the \
                 AppArmor profile bwrap-userns-restrict); in a container this tier is usually denied"
            }
            Tier::Landlock => "use Linux 6.2 or newer with `landlock` in the kernel's lsm= list",
            Tier::Off => "look at the detail: this tier needs nothing but Python",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Tier::Bwrap => "bwrap",
            Tier::Landlock => "landlock",
            Tier::Off => "off",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for choice in [Choice::Auto, Choice::Bwrap, Choice::Landlock, Choice::Off] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for tier in [Tier::Bwrap, Tier::Landlock, Tier::Off] {
            assert_eq!(Tier::named(&tier.to_string()), Some(tier));
        }
        assert!("docker".parse::<Choice>().is_err());
    }

    #[test]
    fn off_is_never_chosen_by_itself() {
        assert!(!Choice::Auto.tiers().contains(&Tier::Off));
    }
}
