//! `#[derive(StateDict)]` for plain structs: every field is a tensor or a part with tensors, named as the field.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{
    Data, DeriveInput, Error, Field, Fields, Index, LitStr, Path, Result, parse_macro_input, parse_quote,
};

/// Implements `weighbridge_model::state_dict::StateDict` for a struct.
///
/// A field's tensors are named `field.…`, those of a tuple struct's fields `0.…`, `1.…`. On a field,
/// `#[state_dict(rename = "name")]` gives another name, `#[state_dict(flatten)]` none of its own, and
/// `#[state_dict(skip)]` leaves it out. On the struct, `#[state_dict(crate = "weighbridge::model")]` says where
/// the crate is.
#[proc_macro_derive(StateDict, attributes(state_dict))]
pub fn derive_state_dict(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(mut input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "StateDict is derived for structs"));
    };
    let mut home: Path = parse_quote!(::weighbridge_model);
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("state_dict")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("a struct takes `crate = \"path\"`"));
            }
            home = meta.value()?.parse::<LitStr>()?.parse()?;
            Ok(())
        })?;
    }
    let home = quote!(#home::state_dict);
    let parts = parts(&data.fields)?;
    let names: Vec<TokenStream> = parts
        .iter()
        .map(|part| match &part.name {
            Some(name) => quote!(&#home::join(prefix, #name)),
            None => quote!(prefix),
        })
        .collect();
    let members: Vec<&TokenStream> = parts.iter().map(|part| &part.member).collect();
    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#home::StateDict));
    }
    let (generics, arguments, clause) = input.generics.split_for_impl();
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #generics #home::StateDict for #ident #arguments #clause {
            fn tensors<'state_dict>(
                &'state_dict self,
                prefix: &str,
                visit: &mut dyn ::core::ops::FnMut(#home::Tensor<'state_dict>) -> #home::Result<()>,
            ) -> #home::Result<()> {
                #(#home::StateDict::tensors(&self.#members, #names, visit)?;)*
                ::core::result::Result::Ok(())
            }

            fn assign(&mut self, prefix: &str, source: &dyn #home::TensorSource) -> #home::Result<()> {
                #(#home::StateDict::assign(&mut self.#members, #names, source)?;)*
                ::core::result::Result::Ok(())
            }
        }
    })
}

/// A field that has tensors.
struct Part {
    /// As it stands behind `self.`.
    member: TokenStream,
    /// The name of its tensors; `None` for those of the struct itself.
    name: Option<String>,
}

fn parts(fields: &Fields) -> Result<Vec<Part>> {
    let mut out = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (at, field) in fields.iter().enumerate() {
        let (member, own) = match &field.ident {
            Some(ident) => (ident.to_token_stream(), ident.to_string().trim_start_matches("r#").to_owned()),
            None => (Index::from(at).to_token_stream(), at.to_string()),
        };
        let Some(name) = name(field, own)? else { continue };
        if let Some(twice) = name.as_ref().filter(|n| !seen.insert((*n).clone())) {
            return Err(Error::new_spanned(field, format!("two fields have the name `{twice}`")));
        }
        out.push(Part { member, name });
    }
    Ok(out)
}

/// The name of a field's tensors: `None` to skip it, `Some(None)` for none of its own.
fn name(field: &Field, own: String) -> Result<Option<Option<String>>> {
    let mut out = Some(Some(own));
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("state_dict")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("skip") {
                out = None;
            } else if meta.path.is_ident("flatten") {
                out = Some(None);
            } else if meta.path.is_ident("rename") {
                let name: LitStr = meta.value()?.parse()?;
                if name.value().is_empty() {
                    return Err(Error::new_spanned(&name, "a name is not empty; `flatten` gives none"));
                }
                out = Some(Some(name.value()));
            } else {
                return Err(meta.error("a field takes `skip`, `flatten` or `rename = \"name\"`"));
            }
            Ok(())
        })?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(input: DeriveInput) -> String {
        expand(input).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(
            fault(parse_quote!(
                enum E {
                    A,
                }
            ))
            .contains("structs")
        );
        assert!(
            fault(parse_quote!(
                struct S {
                    #[state_dict(hide)]
                    a: u8,
                }
            ))
            .contains("takes `skip`")
        );
        assert!(
            fault(parse_quote!(
                struct S {
                    #[state_dict(rename = "")]
                    a: u8,
                }
            ))
            .contains("not empty")
        );
        assert!(
            fault(parse_quote!(
                struct S {
                    #[state_dict(rename = "b")]
                    a: u8,
                    b: u8,
                }
            ))
            .contains("`b`")
        );
        assert!(
            fault(parse_quote!(
                #[state_dict(home = "x")]
                struct S;
            ))
            .contains("crate")
        );
    }
}
