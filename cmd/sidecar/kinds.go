package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weir/policy"
	"weir/policy/diff"
)

// storedKinds are the kinds that a store holds: what sidecars pass over stays in files.
func storedKinds() []policy.Kind {
	return slices.DeleteFunc(policy.Kinds(), policy.Kind.PassedOver)
}

// kindNames are what a command line may call the kinds; more are the other words that it takes there.
func kindNames(more ...string) []string {
	for _, k := range storedKinds() {
		more = append(more, string(k))
	}
	return more
}

// parseKind reads a kind in any case, singular or plural.
func parseKind(word string) (policy.Kind, error) {
	for _, k := range storedKinds() {
		name := strings.ToLower(string(k))
		plural := strings.TrimSuffix(name, "y") + "ies"
		if !strings.HasSuffix(name, "y") {
			plural = name + "s"
		}
		if given := strings.ToLower(word); given == name || given == plural {
			return k, nil
		}
	}
	err := fmt.Errorf("%q is not a kind of document, want one of %s", word, strings.Join(kindNames(), ", "))
	if meant := policy.Closest(word, kindNames()); meant != "" {
		err = fmt.Errorf("%w; did you mean %s?", err, meant)
	}
	return "", err
}

// parseKeys reads KIND NAME...
func parseKeys(args []string) ([]diff.Key, error) {
	kind, err := parseKind(args[0])
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		return nil, fmt.Errorf("the names of the %s documents are missing", kind)
	}
	var keys []diff.Key
	for _, name := range args[1:] {
		keys = append(keys, diff.Key{Kind: kind, Name: name})
	}
	return keys, nil
}

// completeKinds completes the first argument of a command.
func completeKinds(more ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return kindNames(more...), cobra.ShellCompDirectiveNoFileComp
	}
}
