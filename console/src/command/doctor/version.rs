//! Versions as far as they matter: major and minor.

use std::fmt;

/// `3.10` of `3.10.8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl Version {
    /// Reads `3.10.8`, `4.1.0-beta.2`; nothing else.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.trim().split(['.', '-', '+']);
        Some(Self(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let read = |text| Version::read(text);
        assert_eq!(read("3.10.8"), Some(Version(3, 10)));
        assert_eq!(read("4.1-rc.1"), Some(Version(4, 1)));
        assert!(read("3.9.29") < read("3.10.0") && read("3.13.7") < read("4.0.0"));
        assert_eq!((read(""), read("4"), read("x.y")), (None, None, None));
    }
}
