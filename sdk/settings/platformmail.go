package settings

import "github.com/rowhouse-platform/rowhouse/sdk/mail"

// platformMail is a kind of mail that every brand has.
type platformMail struct {
	kind     mail.Kind
	template mail.Template
}

// platformMails are what products need of the first day, by name, with what the platform says in English.
func platformMails() map[string]platformMail {
	link := func(more ...string) mail.Kind {
		k := mail.Kind{Variables: map[string]mail.Type{"link": mail.URL}, Required: []string{"link"}}
		for _, name := range more {
			k.Variables[name] = mail.Text
		}
		return k
	}
	notice := link("recipient", "title")
	notice.Variables["message"], notice.Required, notice.Unsubscribe = mail.Lines, []string{"title", "message"}, true
	return map[string]platformMail{
		"invitation": {link("recipient", "inviter", "expires"), mail.Template{
			Subject: "You are invited to {{.brand}}",
			Text: greeting + "{{if .inviter}}{{.inviter}} invites you to {{.brand}}.{{else}}You are invited to {{.brand}}.{{end}} " +
				"To accept, open this link:\n\n{{.link}}\n" + ends + "\nIf you did not expect this, you can ignore it.\n",
		}},
		"password-reset": {link("recipient", "expires"), mail.Template{
			Subject: "Reset your password for {{.brand}}",
			Text: greeting + "Somebody asked for a new password for your account with {{.brand}}. To choose one, open this link:\n\n" +
				"{{.link}}\n" + ends + "\nIf it was not you, you can ignore this: your password stays as it is.\n",
		}},
		"verification": {link("recipient", "code", "expires"), mail.Template{
			Subject: "Confirm your address for {{.brand}}",
			Text: greeting + "Please confirm that this is your address by opening this link:\n\n{{.link}}\n" +
				"{{if .code}}\nOr enter this code: {{.code}}\n{{end}}" + ends + "\nIf you did not ask for this, you can ignore it.\n",
		}},
		"notice": {notice, mail.Template{
			Subject: "{{.title}}",
			Text: "{{.title}}\n\n" + greeting + "{{.message}}\n\n{{if .link}}{{.link}}\n\n{{end}}" +
				"You can end such messages here:\n\n{{.unsubscribe}}\n",
		}},
	}
}

// Parts of the platform's texts.
const (
	greeting = "Hello{{if .recipient}} {{.recipient}}{{end}},\n\n"
	ends     = "{{if .expires}}\nIt works until {{.expires}}.\n{{end}}"
)
