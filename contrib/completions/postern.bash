# bash completion for ldap2cdb, imapfront, mailwhere and postmap-route.
#
# /usr/share/bash-completion/completions/ loads a file by the command's name:
#     install -m 644 postern.bash /usr/share/bash-completion/completions/ldap2cdb
#     for tool in imapfront mailwhere postmap-route; do
#         ln -s ldap2cdb /usr/share/bash-completion/completions/$tool; done
# Or source it in ~/.bashrc.

# The tools know their own flags: asked with --generate-bash-completion as the
# last word, they list what may stand there, and do nothing else. Behind "--" they
# would take it for a name, so nothing is asked there.
#
# bash cuts words also at @ and such, and wants to hear just the rest of the last
# piece. What it is told stands on the command line as if it had been typed: a name
# out of the directory is quoted, lest the shell runs what is in it.
_postern() {
	local rest=$COMP_LINE before=() piece gap word kept choice quoted
	for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
		gap=${rest%%[![:blank:]]*}
		rest=${rest#"$gap"}
		rest=${rest#"$piece"}
		if [[ -z $gap && ${#before[@]} -gt 0 ]]; then
			before[-1]+=$piece
		else
			before+=("$piece")
		fi
	done
	word=${before[-1]}
	unset "before[-1]"
	kept=${word%"$2"}
	COMPREPLY=()
	for choice in "${before[@]}"; do
		[[ $choice == -- ]] && return
	done
	case $word in
	--) before+=(-) ;;
	-*) before+=("$word") ;;
	# mailwhere lists the names of the map that start so, and must not take the word
	# before for one.
	*) [[ ${1##*/} == mailwhere ]] && before+=("$word") ;;
	esac
	while IFS= read -r choice; do
		printf -v quoted %q "$choice"
		if [[ $quoted == "$word"* || $choice == "$word"* && $quoted == "$kept"* ]]; then
			COMPREPLY+=("${quoted#"$kept"}")
		fi
	done < <("${before[@]}" --generate-bash-completion 2>/dev/null)
}

# Without an answer, as behind --config, bash offers files.
complete -o bashdefault -o default -F _postern ldap2cdb imapfront mailwhere postmap-route
