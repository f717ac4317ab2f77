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
_postern() {
	local word=${COMP_WORDS[COMP_CWORD]} before=("${COMP_WORDS[@]:0:COMP_CWORD}") choice
	COMPREPLY=()
	for choice in "${before[@]}"; do
		[[ $choice == -- ]] && return
	done
	case $word in
	--) before+=(-) ;;
	-*) before+=("$word") ;;
	# mailwhere lists the names of the map that start so.
	?*) [[ ${1##*/} == mailwhere ]] && before+=("$word") ;;
	esac
	while IFS= read -r choice; do
		[[ $choice == "$word"* ]] && COMPREPLY+=("$choice")
	done < <("${before[@]}" --generate-bash-completion 2>/dev/null)
}

# Without an answer, as behind --config, bash offers files.
complete -o bashdefault -o default -F _postern ldap2cdb imapfront mailwhere postmap-route
