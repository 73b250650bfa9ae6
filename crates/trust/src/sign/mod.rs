//! Signatures of models, in the form of OpenSSF model signing.
