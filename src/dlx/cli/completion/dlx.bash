# Completion of dlx command lines in bash; printed by `dlx completion bash`.
_dlx() {
    local line
    local -a lines=()
    while IFS= read -r line; do
        lines+=("$line")
    done < <("${1/#\~/$HOME}" __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    COMPREPLY=()
    case ${lines[0]-} in
        words)
            COMPREPLY=("${lines[@]:1}")
            compopt +o bashdefault +o default 2>/dev/null
            ;;
        folders) compopt +o nospace +o bashdefault +o default -o dirnames 2>/dev/null ;;
        *) compopt +o nospace 2>/dev/null ;;
    esac
}
complete -o nospace -o bashdefault -o default -F _dlx dlx
