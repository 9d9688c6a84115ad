package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestWithKeys(t *testing.T) {
	text := `
		Sidecar weir {identity: [{apiKey: {keysFile: one}}, {host: '{tenant}.example.com'}, {jwt: {jwksFile: /etc/set, audience: a}}, {apiKey: {keysFile: /etc/two}}]}` + orders
	s := mustCompile(t, set(t, "dir/set.yaml", text))
	files := s.Sidecar.KeyFiles()
	want := []KeyFile{{Source: 0, Path: "dir/one"}, {Source: 2, Path: "/etc/set", JWKS: true}, {Source: 3, Path: "/etc/two"}}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("key files (-want +got):\n%s", diff)
	}
	if one, two := files[1].Field(), files[2].Field(); one != "spec.identity[2].jwt.jwksFile" || two != "spec.identity[3].apiKey.keysFile" {
		t.Errorf("fields %q and %q", one, two)
	}
	table := func(hash byte, tenant string) Keys { return Keys{API: APIKeyTable{{hash}: tenant}} }
	jwks := func(members string) Keys { return Keys{Set: mustParseKeySet(t, `{"keys": [`+members+`]}`)} }
	a, b, keys := table(1, "acme"), table(2, "globex"), jwks(jwkEd)
	hashes := map[string]string{s.Hash: "the documents alone"}
	f := func(what string, keys ...Keys) *Snapshot {
		t.Helper()
		with := s.WithKeys(keys)
		if other, met := hashes[with.Hash]; met {
			t.Errorf("%s have the hash of %s", what, other)
		}
		hashes[with.Hash] = what
		if again := with.WithKeys(keys); again.Hash != with.Hash {
			t.Errorf("%s have another hash the second time", what)
		}
		if diff := cmp.Diff([]APIKeyTable{keys[0].API, keys[2].API}, with.Sidecar.APIKeys); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff([]KeySet{keys[1].Set}, with.Sidecar.KeySets, cmpopts.IgnoreUnexported(VerificationKey{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		return with
	}

	// Each set of keys is a snapshot of its own.
	with := f("the keys", a, keys, b)
	f("the tables exchanged", b, keys, a)
	f("another tenant", table(1, "globex"), keys, b)
	f("another API key", table(4, "acme"), keys, b)
	f("an empty table", Keys{API: APIKeyTable{}}, keys, b)
	f("another JWK", a, jwks(jwkEC), b)
	f("another JWK of the same type", a, jwks(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`), b)
	f("another name of the same JWK", a, jwks(jwkEdNamed), b)
	f("a JWK for fewer algorithms", a, jwks(jwkRSA), b)
	f("the same JWK for all it can do", a, jwks(jwkRSAAll), b)
	// How a set is written makes no difference.
	if got := s.WithKeys([]Keys{a, jwks("  " + jwkEd + "\n"), b}).Hash; got != with.Hash {
		t.Error("white space makes another snapshot")
	}

	// The original stays as it was, and the caller's tables are not the snapshot's.
	if s.Sidecar.APIKeys != nil || s.Sidecar.KeySets != nil {
		t.Error("WithKeys changed its receiver")
	}
	a.API[[32]byte{9}] = "mallory"
	keys.Set[0] = VerificationKey{}
	if len(with.Sidecar.APIKeys[0]) != 1 || with.Sidecar.KeySets[0][0].Key == nil {
		t.Error("the snapshot shares the caller's keys")
	}

	// The rest is the same.
	if got := with.Covering("acme", nil); with.Sidecar.Name != "weir" || len(with.Backends) != 1 || len(got) != 0 {
		t.Error("the copy has lost something")
	}
}

func TestWithoutKeysTheHashIsTheDocuments(t *testing.T) {
	s := mustCompile(t, set(t, "set.yaml", orders))
	if got := s.WithKeys(nil).Hash; got != s.Hash {
		t.Errorf("hash %s, want %s", got, s.Hash)
	}
}

func TestWithKeysWantsThoseOfEachFile(t *testing.T) {
	s := mustCompile(t, set(t, "set.yaml", orders))
	defer func() {
		if r := recover(); r != "BUG: keys of 1 files for 0" {
			t.Errorf("recovered %v", r)
		}
	}()
	s.WithKeys([]Keys{{}})
	t.Error("no panic")
}

func TestKeyFileParse(t *testing.T) {
	f := func(file KeyFile, text, holds string, want bool) {
		t.Helper()
		keys, ok, problems := file.Parse([]byte(text))
		if ok != want || ok == (len(problems) > 0) || (keys.API != nil) != (ok && !file.JWKS) || (keys.Set != nil) != (ok && file.JWKS) {
			t.Errorf("%q: %v, %v, %s", text, ok, keys, said(problems))
		}
		if got := file.Holds(); got != holds {
			t.Errorf("it holds %q, want %q", got, holds)
		}
	}
	f(KeyFile{}, "acme:"+hashA, "API keys", true)
	f(KeyFile{}, "acme", "API keys", false)
	f(KeyFile{JWKS: true}, `{"keys": [`+jwkEd+`]}`, "key set", true)
	f(KeyFile{JWKS: true}, "acme:"+hashA, "key set", false)
}
