//! From a signer's certificate to a root that the verifier trusts.
//!
//! The search is bounded: so many certificates, so deep, so many signatures checked. As in `model-signing`, a chain has to
//! hold at the moment at which the signer's certificate begins to be valid, since nothing in a bundle proves when it was
//! signed; whether it has expired since is told, and can be asked for.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weighbridge_formats::{Error, Result};

use super::certificate::Certificate;

/// The longest chain, the signer's certificate and the root included.
const DEPTH: usize = 8;
/// The most signatures that are checked on the way.
const CHECKS: usize = 64;

/// Certificates that a verifier trusts.
#[derive(Clone, Debug)]
pub struct Roots {
    roots: Vec<Certificate>,
    /// Others of the same files, which help to build chains and are not trusted by themselves.
    others: Vec<Certificate>,
}

impl Roots {
    /// Sorts certificates into roots, which name themselves as their issuers, and others.
    ///
    /// # Errors
    /// `InvalidOptions` if there is no root among them.
    pub fn new(certificates: Vec<Certificate>) -> Result<Self> {
        let (roots, others): (Vec<_>, Vec<_>) =
            certificates.into_iter().partition(Certificate::is_self_issued);
        if roots.is_empty() {
            return Err(Error::invalid_options(
                "none of the certificates is a root, which has itself as its issuer",
            )
            .with_hint(
                "give the root's certificate too; one in the middle of a chain is not trusted by itself",
            ));
        }
        Ok(Self { roots, others })
    }

    /// Of PEM files.
    ///
    /// # Errors
    /// As [`Certificate::all_from_file`] and [`Roots::new`].
    pub fn from_files<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        let mut all = Vec::new();
        for path in paths {
            all.extend(Certificate::all_from_file(path.as_ref())?);
        }
        Self::new(all)
    }

    /// Whether the first certificate of a chain may sign models and leads to a root by the others.
    ///
    /// # Errors
    /// `Mismatch` with the reason if not; `Unsupported` for algorithms that are not known.
    pub(super) fn verify(&self, chain: &[Certificate], valid_now: bool) -> Result<()> {
        let Some((signer, brought)) = chain.split_first() else {
            return Err(Error::malformed("there is no certificate"));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let begin = signer.validity().0;
        if begin > now {
            return Err(refused(signer, "it is not valid yet"));
        }
        let time = if valid_now { now } else { begin };
        if let Some(fault) = signer.fault_at(time).or_else(|| signer.fault_as_signer()) {
            return Err(refused(signer, &fault));
        }
        if self.roots.iter().any(|root| root.der() == signer.der()) {
            return Ok(());
        }
        let mut search = Search { roots: self, brought, time, checks: 0, fault: None };
        if search.find(signer)? {
            return Ok(());
        }
        Err(search.fault.unwrap_or_else(|| {
            let what = format!("its issuer ({}) leads to none of the trusted roots", signer.issuer());
            refused(signer, &what)
        }))
    }
}

fn refused(certificate: &Certificate, why: &str) -> Error {
    Error::mismatch(format!("the certificate of {}: {why}", certificate.subject()))
        .with_hint("the signature is not to be trusted, unless you know why; docs/signing.md says what is asked of certificates")
}

struct Search<'a> {
    roots: &'a Roots,
    brought: &'a [Certificate],
    time: Duration,
    checks: usize,
    /// What was wrong with a certificate that would have been next.
    fault: Option<Error>,
}

impl<'a> Search<'a> {
    /// Depth first, with a stack of paths of its own.
    fn find(&mut self, signer: &'a Certificate) -> Result<bool> {
        let mut waiting: Vec<Vec<&'a Certificate>> = vec![vec![signer]];
        while let Some(path) = waiting.pop() {
            let Some(tip) = path.last().copied() else { continue };
            // The authorities between the next certificate and the signer; one that names itself counts for none.
            let below = path.iter().skip(1).filter(|c| !c.is_self_issued()).count();
            for root in &self.roots.roots {
                if self.fits(tip, root, below)? {
                    return Ok(true);
                }
            }
            if path.len() + 1 >= DEPTH {
                continue;
            }
            let roots = self.roots;
            for next in self.brought.iter().chain(&roots.others) {
                if path.iter().all(|c| c.der() != next.der()) && self.fits(tip, next, below)? {
                    waiting.push(path.iter().copied().chain([next]).collect());
                }
            }
        }
        Ok(false)
    }

    /// Whether `issuer` has issued `tip` and was allowed to.
    fn fits(&mut self, tip: &Certificate, issuer: &Certificate, below: usize) -> Result<bool> {
        if !tip.names(issuer) {
            return Ok(false);
        }
        self.checks += 1;
        if self.checks > CHECKS {
            return Err(Error::limit(format!(
                "more than {CHECKS} signatures of certificates would have to be checked"
            )));
        }
        if !tip.is_signed_by(issuer)? {
            self.fault = Some(refused(tip, &format!("it is not signed by the key of {}", issuer.subject())));
            return Ok(false);
        }
        if let Some(fault) = issuer.fault_at(self.time).or_else(|| issuer.fault_as_issuer(below)) {
            self.fault = Some(refused(issuer, &fault));
            return Ok(false);
        }
        Ok(true)
    }
}
